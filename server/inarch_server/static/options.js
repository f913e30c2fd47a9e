// The settings beside the chat: kept in this browser, and turned into fields of a request.

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed",
                 "frequency_penalty", "presence_penalty"];
const FIELDS = [...NUMBERS, "system", "stop", "reasoning_effort", "schema", "tools", "tool_choice"];
const el = id => document.getElementById(id);

const EXAMPLES = {
  schema: {
    type: "object",
    properties: {city: {type: "string"}, country: {type: "string"}, people: {type: "integer"}},
    required: ["city", "country", "people"],
    additionalProperties: false,
  },
  tools: [{
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city now",
      parameters: {type: "object", properties: {city: {type: "string"}}, required: ["city"]},
    },
  }],
};

const CHECKS = {
  schema: value => value !== null && typeof value === "object" && !Array.isArray(value)
    || typeof value === "boolean" || "a schema is a JSON object",
  tools: value => Array.isArray(value)
    ? value.every(tool => typeof tool?.function?.name === "string") || "each tool needs function.name"
    : "tools are a JSON list",
};

// The JSON in an editor, undefined if it is empty; throws what is wrong with it.
function parsed(name) {
  const text = el(name).value.trim();
  if (!text) return undefined;
  let value;
  try { value = JSON.parse(text); } catch (error) { throw new Error(`not valid JSON: ${error.message}`); }
  const verdict = CHECKS[name](value);
  if (verdict !== true) throw new Error(verdict);
  return value;
}

function check(name) {
  const state = el(`${name}-state`);
  let text = "", wrong = false;
  try {
    const value = parsed(name);
    if (value !== undefined) text = name === "tools" ? `${value.length} tool${value.length === 1 ? "" : "s"}` : "valid JSON";
  } catch (error) { text = error.message; wrong = true; }
  state.textContent = text;
  state.classList.toggle("wrong", wrong);
  el(name).setAttribute("aria-invalid", String(wrong));
}

// Fields of a chat completion request; throws an Error that says which setting is wrong.
export function requestFields() {
  const fields = {};
  for (const name of NUMBERS) {
    const field = el(name);
    if (!field.validity.valid) throw new Error(`Settings, ${field.labels[0].textContent.trim()}: ${field.validationMessage}`);
    if (field.value !== "") fields[name] = Number(field.value);
  }
  const stop = el("stop").value.split("\n").filter(Boolean);
  if (stop.length) fields.stop = stop;
  if (el("reasoning_effort").value) fields.reasoning_effort = el("reasoning_effort").value;
  const schema = named("JSON schema", "schema"), tools = named("Tools", "tools");
  if (schema !== undefined) {
    fields.response_format = {type: "json_schema", json_schema: {name: "answer", schema, strict: true}};
  }
  if (tools?.length) {
    fields.tools = tools;
    if (el("tool_choice").value) fields.tool_choice = el("tool_choice").value;
  }
  return fields;
}

function named(title, name) {
  try { return parsed(name); } catch (error) { throw new Error(`Settings, ${title}: ${error.message}`); }
}

export function systemPrompt() {
  return el("system").value.trim();
}

function save() {
  const values = Object.fromEntries(FIELDS.map(id => [id, el(id).value]).filter(([, value]) => value));
  localStorage.setItem("settings", JSON.stringify(values));
  const count = Object.keys(values).length;
  el("show-settings").textContent = count ? `Settings · ${count}` : "Settings";
}

function refresh() {
  check("schema");
  check("tools");
  save();
}

export function startOptions() {
  let kept = {};
  try { kept = JSON.parse(localStorage.getItem("settings")) ?? {}; } catch { /* somebody else's */ }
  for (const id of FIELDS) if (typeof kept[id] === "string") el(id).value = kept[id];
  el("options").oninput = refresh;
  el("options").onsubmit = event => event.preventDefault();
  el("options").onreset = () => setTimeout(refresh);
  for (const name of Object.keys(EXAMPLES)) {
    el(`${name}-example`).onclick = () => {
      el(name).value = JSON.stringify(EXAMPLES[name], null, 2);
      refresh();
    };
  }
  const show = open => {
    document.body.classList.toggle("with-settings", open);
    el("show-settings").setAttribute("aria-expanded", String(open));
    localStorage.setItem("open", open ? "1" : "");
    if (!open) el("show-settings").focus();
  };
  el("show-settings").onclick = () => show(!document.body.classList.contains("with-settings"));
  el("hide-settings").onclick = () => show(false);
  el("settings").onkeydown = event => { if (event.key === "Escape") show(false); };
  if (localStorage.getItem("open") && innerWidth > 900) {
    document.body.classList.add("with-settings");
    el("show-settings").setAttribute("aria-expanded", "true");
  }
  refresh();
}
