// The page: two views, chosen by the address's #/chat or #/live.

import {get} from "./api.js";
import {startChat} from "./chat.js";
import {startLive, watch} from "./live.js";
import {startOptions} from "./options.js";

const el = id => document.getElementById(id);

function showView() {
  const isLive = location.hash === "#/live";
  el("chat").hidden = isLive;
  el("live").hidden = !isLive;
  for (const [name, current] of [["chat", !isLive], ["live", isLive]]) {
    if (current) el(`to-${name}`).setAttribute("aria-current", "page");
    else el(`to-${name}`).removeAttribute("aria-current");
  }
  document.body.classList.toggle("watching", isLive);
  watch(isLive);
}

async function showModel() {
  try {
    const {data: [model]} = await get("/v1/models");
    el("model").textContent = model.id;
    document.title = `${model.id} · Inarch`;
  } catch (error) {
    el("model").textContent = error.message;
  }
}

startOptions();
startChat();
startLive();
addEventListener("hashchange", showView);
showView();
showModel();
