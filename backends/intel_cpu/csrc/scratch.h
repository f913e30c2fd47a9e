// Memory of a thread for what a kernel computes on its way: kept, and grown when more is asked for.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>

namespace inarch {

class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(memory_); }

    template <class T> T* get(int64_t count) {
        const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
        if (bytes > size_) {
            std::free(memory_);
            size_ = 0;  // also if there is no more
            memory_ = std::aligned_alloc(64, bytes);
            if (!memory_) throw std::bad_alloc();
            size_ = bytes;
        }
        return static_cast<T*>(memory_);
    }

  private:
    void* memory_ = nullptr;
    size_t size_ = 0;
};

}  // namespace inarch
