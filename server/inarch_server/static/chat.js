// The conversation: asks OpenAI's chat completions, shows the answer as it comes.

import {call, events} from "./api.js";
import {requestFields, systemPrompt} from "./options.js";
import {copyButton, make, render} from "./text.js";

const IDEAS = ["What is the capital of France?", "What is 12 + 30?", "List the days of the week."];
const ENDS = {
  length: "cut at the longest allowed",
  abort: "ended by the server",
  content_filter: "held back",
};
const el = id => document.getElementById(id);
const talk = el("talk"), say = el("say"), send = el("send"), scroller = el("scroller");

let messages = []; // as the API takes them, without the system prompt
let running = null; // the AbortController of the answer that is being written

// What the deltas of a stream add up to.
export class Answer {
  constructor() {
    this.content = this.reasoning = "";
    this.calls = [];
    this.end = null;
    this.usage = null;
  }

  add(event) {
    if (event.usage) this.usage = event.usage;
    const choice = event.choices?.[0];
    if (!choice) return;
    this.content += choice.delta?.content ?? "";
    this.reasoning += choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? "";
    for (const part of choice.delta?.tool_calls ?? []) {
      const call = this.calls[part.index ?? 0] ??= {id: "", name: "", arguments: ""};
      if (part.id) call.id = part.id;
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
    this.end = choice.finish_reason ?? this.end;
  }

  get isEmpty() {
    return !this.content && !this.reasoning && !this.calls.length;
  }

  message() {
    const message = {role: "assistant", content: this.content};
    if (this.calls.length) {
      message.tool_calls = this.calls.map(call =>
        ({id: call.id, type: "function", function: {name: call.name, arguments: call.arguments}}));
    }
    return message;
  }
}

function follow(change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

/* ---- one answer on the page ---- */

class Turn {
  constructor() {
    this.node = make("article", "said answer");
    this.node.setAttribute("aria-label", "Answer");
    this.body = make("div", "text busy");
    this.foot = make("footer");
    this.node.append(this.body, this.foot);
    talk.append(this.node);
    this.frame = 0;
  }

  // Shown once a frame, however many events come in one.
  show(answer) {
    this.answer = answer;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const {reasoning, content, calls} = this.answer;
    follow(() => {
      if (reasoning) this.thoughts().lastChild.textContent = reasoning;
      if (this.details && (content || calls.length) && !this.closed) {
        this.details.open = false; // once: afterwards it is the reader's
        this.closed = true;
      }
      this.body.replaceChildren(render(content), ...calls.filter(Boolean).map(showCall));
    });
  }

  thoughts() {
    if (!this.details) {
      this.details = make("details", "thoughts");
      this.details.open = true;
      this.details.append(make("summary", "", "Reasoning"), make("div"));
      this.node.prepend(this.details);
    }
    return this.details;
  }

  finish(note, wrong) {
    this.draw();
    follow(() => {
      this.body.classList.remove("busy");
      const text = make("span", wrong ? "note wrong" : "note", note);
      if (wrong) text.setAttribute("role", "alert");
      const again = make("button", "quiet", wrong ? "Try again" : "Regenerate");
      again.type = "button";
      again.onclick = () => regenerate(this);
      this.foot.append(text);
      if (this.answer.content) this.foot.append(copyButton(() => this.answer.content));
      this.foot.append(again);
    });
  }
}

function showCall(call) {
  const card = make("div", "call");
  const head = make("div", "bar");
  head.append(make("span", "", "calls "), make("b", "", call.name));
  card.append(head);
  let text = call.arguments;
  try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not complete yet */ }
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.append(make("code", "", text));
  card.append(pre);
  return card;
}

// Fields for what the called tools gave back, and a button that goes on with it.
function askResults(turn, calls) {
  const form = make("form", "results");
  const fields = calls.map(call => {
    const label = make("label", "wide", `What ${call.name} gave back`);
    const field = make("textarea", "code");
    field.rows = 2;
    label.append(field);
    form.append(label);
    return field;
  });
  form.append(make("button", "", "Send results"));
  form.onsubmit = event => {
    event.preventDefault();
    if (running) return;
    calls.forEach((call, i) => messages.push({role: "tool", tool_call_id: call.id, content: fields[i].value}));
    form.querySelector("button").remove();
    for (const field of fields) field.readOnly = true;
    write();
  };
  follow(() => turn.node.append(form));
}

/* ---- asking ---- */

function speed(start, first, tokens, usage) {
  if (!first) return "";
  const seconds = (performance.now() - first) / 1000;
  const parts = [];
  if (usage) parts.push(`${usage.prompt_tokens} + ${tokens} tokens`);
  parts.push(`first after ${Math.round(first - start)} ms`);
  if (tokens > 1 && seconds > 0.02) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  return parts.join(" · ");
}

function body() {
  const system = systemPrompt();
  return JSON.stringify({
    messages: system ? [{role: "system", content: system}, ...messages] : messages,
    stream: true,
    stream_options: {include_usage: true, continuous_usage_stats: true},
    ...requestFields(),
  });
}

// Let the model answer what has been said so far.
async function write() {
  const turn = new Turn(), answer = new Answer();
  turn.answer = answer;
  scroller.scrollTop = scroller.scrollHeight;
  const mine = running = new AbortController(), start = performance.now();
  setBusy(true);
  let first = 0, note = "", wrong = false;
  try {
    const response = await call("/v1/chat/completions", {method: "POST", signal: mine.signal, body: body()});
    for await (const event of events(response)) {
      first ||= performance.now();
      answer.add(event);
      turn.show(answer);
    }
    note = [speed(start, first, answer.usage?.completion_tokens ?? 0, answer.usage), ENDS[answer.end]]
      .filter(Boolean).join(" · ");
  } catch (error) {
    wrong = error.name !== "AbortError";
    note = wrong ? error.message
      : ["stopped", speed(start, first, answer.usage?.completion_tokens ?? 0, answer.usage)].filter(Boolean).join(" · ");
  }
  if (mine === running) { running = null; setBusy(false); }
  if (!turn.node.isConnected) return; // a new chat has begun
  turn.finish(note, wrong);
  if (answer.isEmpty) return;
  turn.at = messages.push(answer.message()) - 1;
  if (answer.calls.length && !wrong) askResults(turn, answer.calls);
}

function setBusy(busy) {
  send.textContent = busy ? "Stop" : "Send";
  talk.setAttribute("aria-busy", String(busy));
}

function ask(text) {
  el("empty").hidden = true;
  if (messages.at(-1)?.role === "user") messages.pop(); // it was never answered
  messages.push({role: "user", content: text});
  const said = make("article", "said user", text);
  said.setAttribute("aria-label", "You");
  talk.append(said);
  write();
}

// Take a turn and all after it back, and let the model answer again.
function regenerate(turn) {
  if (running) return;
  if (turn.at !== undefined) messages.length = turn.at;
  while (talk.lastChild !== turn.node) talk.lastChild.remove();
  turn.node.remove();
  const asked = talk.querySelectorAll(".user");
  if (messages.at(-1)?.role === "assistant") messages.push({role: "user", content: [...asked].at(-1).textContent});
  write();
}

function begin() {
  running?.abort();
  running = null;
  setBusy(false);
  messages = [];
  talk.replaceChildren();
  el("empty").hidden = false;
  say.focus();
}

function fit() {
  say.style.height = "auto";
  say.style.height = `${say.scrollHeight}px`;
}

export function startChat() {
  for (const idea of IDEAS) {
    const button = make("button", "", idea);
    button.type = "button";
    button.onclick = () => running || ask(idea);
    el("ideas").append(button);
  }
  el("ask").onsubmit = event => {
    event.preventDefault();
    if (running) return running.abort();
    const text = say.value.trim();
    if (text) { say.value = ""; fit(); ask(text); }
  };
  say.oninput = fit;
  say.onkeydown = event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!running) el("ask").requestSubmit();
    }
  };
  addEventListener("keydown", event => {
    if (event.key === "Escape" && running && !el("key-dialog").open) running.abort();
  });
  el("fresh").onclick = begin;
  begin();
}
