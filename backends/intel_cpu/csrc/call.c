// The one way from Python into a kernel: a function object over an address, at little cost a call.
//
// bind(address, signature) -> f(*arguments). Of the arguments, p takes a tensor (anything with
// data_ptr()), None or an address, i an int, f a float: see abi.h.
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST 32

typedef union {
    void* p;
    int64_t i;
    double f;
} Argument;

typedef struct {
    int (*entry)(const Argument*);
    Py_ssize_t count;
    char signature[MOST + 1];
} Kernel;

static PyObject* data_ptr;  // the name

static int pointer(PyObject* given, Argument* argument) {
    if (given == Py_None) {
        argument->p = NULL;
        return 0;
    }
    PyObject* address = PyLong_Check(given) ? Py_NewRef(given)
                                            : PyObject_CallMethodObjArgs(given, data_ptr, NULL);
    if (!address) return -1;
    argument->p = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    return argument->p == NULL && PyErr_Occurred() ? -1 : 0;
}

static int convert(char kind, PyObject* given, Argument* argument) {
    switch (kind) {
        case 'p':
            return pointer(given, argument);
        case 'i':
            argument->i = PyLong_AsLongLong(given);
            return argument->i == -1 && PyErr_Occurred() ? -1 : 0;
        default:
            argument->f = PyFloat_AsDouble(given);
            return argument->f == -1.0 && PyErr_Occurred() ? -1 : 0;
    }
}

static PyObject* call(PyObject* self, PyObject* const* given, Py_ssize_t count) {
    const Kernel* kernel = (const Kernel*)PyCapsule_GetPointer(self, NULL);
    if (!kernel) return NULL;
    if (count != kernel->count) {
        PyErr_Format(PyExc_TypeError, "the kernel takes %zd arguments (%s), not %zd", kernel->count,
                     kernel->signature, count);
        return NULL;
    }
    Argument arguments[MOST];
    for (Py_ssize_t n = 0; n < count; n++)
        if (convert(kernel->signature[n], given[n], &arguments[n])) return NULL;
    PyThreadState* state = PyEval_SaveThread();
    const int failed = kernel->entry(arguments);
    PyEval_RestoreThread(state);
    if (failed) {
        PyErr_SetString(PyExc_MemoryError, "a CPU kernel got no memory for what it computes on its way");
        return NULL;
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef kernel_method = {"kernel", (PyCFunction)(void (*)(void))call, METH_FASTCALL, NULL};

static void forget(PyObject* capsule) { free(PyCapsule_GetPointer(capsule, NULL)); }

static PyObject* bind(PyObject* self, PyObject* arguments) {
    PyObject* address;
    const char* signature;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "Os#", &address, &signature, &count)) return NULL;
    if (count > MOST) {
        PyErr_Format(PyExc_ValueError, "a kernel takes at most %d arguments, not %zd", MOST, count);
        return NULL;
    }
    Kernel* kernel = calloc(1, sizeof(Kernel));
    if (!kernel) return PyErr_NoMemory();
    kernel->entry = (int (*)(const Argument*))PyLong_AsVoidPtr(address);
    kernel->count = count;
    memcpy(kernel->signature, signature, count);
    PyObject* capsule = PyErr_Occurred() ? NULL : PyCapsule_New(kernel, NULL, forget);
    if (!capsule) {
        free(kernel);
        return NULL;
    }
    PyObject* function = PyCFunction_New(&kernel_method, capsule);
    Py_DECREF(capsule);
    return function;
}

static PyMethodDef methods[] = {{"bind", bind, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "call", NULL, -1, methods};

PyMODINIT_FUNC PyInit_call(void) {
    data_ptr = PyUnicode_InternFromString("data_ptr");
    return data_ptr ? PyModule_Create(&module) : NULL;
}
