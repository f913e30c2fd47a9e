// Shows what a model wrote. A model may write anything, so nothing here ever makes HTML of it: all
// of it becomes text nodes, and of Markdown only what reads better: code, headings, lists, emphasis.

export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

export function render(text) {
  const whole = document.createDocumentFragment();
  const parts = text.split(/^[ \t]*```([^\n`]*)(?:\n|$)/m); // text, language, code, language, text …
  for (let i = 0; i < parts.length; i += 2) {
    const isCode = i % 4 === 2;
    if (isCode) whole.append(codeBlock(parts[i], parts[i - 1]));
    else if (parts[i].trim()) whole.append(prose(parts[i]));
  }
  return whole;
}

function codeBlock(code, language) {
  const block = make("div", "block");
  const bar = make("div", "bar");
  bar.append(make("span", "", language.trim() || "code"), copyButton(() => code));
  const pre = make("pre");
  pre.tabIndex = 0; // long lines scroll, with the keyboard too
  pre.append(make("code", "", code.replace(/\n$/, "")));
  block.append(bar, pre);
  return block;
}

function prose(text) {
  const found = document.createDocumentFragment();
  let list = null;
  for (const paragraph of text.split(/\n{2,}/)) {
    let lines = [];
    const flush = () => {
      if (lines.length) found.append(inline(make("p"), lines.join("\n")));
      lines = [];
    };
    list = null;
    for (const line of paragraph.split("\n")) {
      const item = /^\s*(?:([-*•])|(\d+)[.)])\s+(.*)$/.exec(line);
      const heading = /^#{1,6}\s+(.*)$/.exec(line);
      if (item) {
        flush();
        const tag = item[1] ? "UL" : "OL";
        if (list?.tagName !== tag) {
          list = make(tag);
          if (item[2]) list.start = Number(item[2]);
          found.append(list);
        }
        list.append(inline(make("li"), item[3]));
      } else if (heading) {
        flush();
        list = null;
        found.append(inline(make("h3"), heading[1]));
      } else if (line.trim()) {
        list = null;
        lines.push(line);
      }
    }
    flush();
  }
  return found;
}

function inline(node, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (part.length > 2 && part.startsWith("`")) node.append(make("code", "", part.slice(1, -1)));
    else if (part.length > 4 && part.startsWith("**")) node.append(make("strong", "", part.slice(2, -2)));
    else if (part) node.append(part);
  }
  return node;
}

export function copyButton(text, label = "Copy") {
  const button = make("button", "quiet", label);
  button.type = "button";
  button.onclick = async () => {
    button.textContent = await copy(text()) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  };
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = make("textarea", "unseen"); // plain http has no clipboard but this one
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
