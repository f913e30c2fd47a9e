// Talks to the server: adds the API key, asks for one if it is needed, reads streams of events.

const dialog = document.getElementById("key-dialog");
let asking = null; // one dialog for all requests that wait for a key

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answered ${status}`);
    this.status = status;
  }
}

export async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem("key");
    const headers = {"Content-Type": "application/json"};
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await fetch(path, {...options, headers});
    if (response.ok) return response;
    const body = await response.json().catch(() => null);
    if (response.status !== 401) throw new Refused(response.status, body?.error);
    if (key !== sessionStorage.getItem("key")) continue; // given meanwhile
    asking ??= askForKey(Boolean(key)).finally(() => { asking = null; });
    if (!await asking) throw new Refused(401, body?.error);
  }
}

export async function get(path) {
  return (await call(path)).json();
}

function askForKey(wasWrong) {
  const field = document.getElementById("key");
  document.getElementById("key-wrong").hidden = !wasWrong;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise(resolve => {
    document.getElementById("key-form").onsubmit = () => {
      sessionStorage.setItem("key", field.value);
      resolve(true);
    };
    document.getElementById("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(false);
  });
}

// The JSON of each event of a stream; throws if it ends before [DONE], or with an error.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error("the connection broke before the answer was complete");
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter(line => line.startsWith("data:"))
        .map(line => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}
