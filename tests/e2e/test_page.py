"""The page in a real browser, against a real server with the bundled model.

What the bundled model cannot do (reason, call tools, misbehave) is played by answers in OpenAI's
format, which the browser gets in place of the server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from .browser import open_browser
from .process import ServerProcess, eventually

KEY = "s3cret"
CHAT = "**/v1/chat/completions"
expect.set_options(timeout=30_000)  # milliseconds, on a machine that runs other tests beside


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def locked(browser: Browser) -> Iterator[ServerProcess]:
    """A server that wants a key; started only where there is a browser."""
    with ServerProcess("--api-key", KEY) as process:
        yield process


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, server: ServerProcess, complaints: list[str]) -> Iterator[Page]:
    """The page of the shared server; nothing may be logged to the console but failed requests."""
    context = browser.new_context()
    page = context.new_page()
    watch(page, complaints)
    page.goto(f"http://127.0.0.1:{server.port}/")
    yield page
    context.close()
    assert complaints == []


def watch(page: Page, complaints: list[str]) -> None:
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None)  # fmt: skip


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Any:
    return page.get_by_label("Answer", exact=True)


def play(page: Page, *deltas: dict[str, Any], finish: str = "stop") -> list[dict[str, Any]]:
    """Answer chats with these deltas; the bodies of the requests are kept in the list."""
    asked: list[dict[str, Any]] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}],
                       "usage": {"prompt_tokens": 3, "completion_tokens": len(deltas)}})  # fmt: skip
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        body = "".join([*lines, "data: [DONE]\n\n"])
        route.fulfill(content_type="text/event-stream", body=body)

    page.unroute_all()
    page.route(CHAT, answer)
    return asked


def test_a_question_is_answered_with_counts_and_speed(page: Page) -> None:
    ask(page, "What is the capital of France?")
    answer = answers(page).last
    expect(answer).to_contain_text("Paris")
    expect(answer.locator(".note")).to_have_text(
        re.compile(r"^\d+ \+ \d+ tokens · first after \d+ ms · [\d.]+ tokens/s$")
    )
    expect(page.get_by_label("Message")).to_have_value("")


def test_a_suggestion_begins_a_chat_and_a_new_chat_forgets_it(page: Page) -> None:
    page.get_by_role("button", name="What is 12 + 30?").click()
    expect(answers(page)).to_contain_text("42")
    page.get_by_role("button", name="New chat").click()
    expect(answers(page)).to_have_count(0)
    asked = play(page, {"content": "Hi."})
    ask(page, "Hello")
    expect(answers(page)).to_contain_text("Hi.")
    assert asked[0]["messages"] == [{"role": "user", "content": "Hello"}]


def test_stop_ends_an_answer_and_regenerate_asks_again(page: Page, server: ServerProcess) -> None:
    endless = {"ignore_eos": True, "max_tokens": 1900}
    page.route(CHAT, lambda route: route.continue_(
        post_data=json.dumps(route.request.post_data_json | endless)))  # fmt: skip
    ask(page, "Tell me a story.")
    expect(answers(page).locator(".text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(answers(page).locator(".note")).to_contain_text("stopped · ")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    eventually(lambda: server.metric("sglang:num_running_reqs") == 0)
    asked = play(page, {"content": "Once."})
    answers(page).get_by_role("button", name="Regenerate").click()
    expect(answers(page)).to_have_text(re.compile(r"^Once\."))
    assert [message["role"] for message in asked[0]["messages"]] == ["user"]


def test_settings_become_fields_of_the_request_and_are_kept(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    for label, value in (("Temperature", "0.5"), ("Top p", "0.9"), ("Top k", "5"), ("Min p", "0.1"),
                         ("Most tokens", "7"), ("Seed", "3")):  # fmt: skip
        page.get_by_label(label).fill(value)
    page.get_by_label("Stop at").fill("one\ntwo")
    for example in page.get_by_role("button", name="Example").all():
        example.click()
    page.get_by_label("Which to call").select_option("required")
    page.reload()  # and now from what the browser kept
    asked = play(page, {"content": "{}"})
    ask(page, "Go")
    expect(answers(page)).to_contain_text("{}")
    (body,) = asked
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "max_tokens": 7,
              "seed": 3, "stop": ["one", "two"], "tool_choice": "required", "stream": True}  # fmt: skip
    assert wanted.items() <= body.items()
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"]["type"] == "object"
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert "reasoning_effort" not in body


@pytest.mark.parametrize(
    ("label", "text", "complaint"),
    [
        ("JSON schema that answers", '{"type": ', "JSON schema: not valid JSON"),
        ("JSON schema that answers", "[]", "a schema is a JSON object"),
        ("Tools as a JSON list", "{}", "tools are a JSON list"),
        ("Tools as a JSON list", "[{}]", "each tool needs function.name"),
        ("Temperature", "3", "Temperature: "),
    ],
)
def test_a_wrong_setting_is_told_and_not_sent(
    page: Page, label: str, text: str, complaint: str
) -> None:
    asked = play(page, {"content": "no"})
    page.get_by_role("button", name="Settings").click()
    page.get_by_label(label).fill(text)
    ask(page, "Go")
    expect(page.get_by_role("alert").filter(has_text=complaint)).to_be_visible()
    assert asked == []


def test_reasoning_is_folded_away_when_the_answer_begins(page: Page) -> None:
    play(page, {"reasoning_content": "Let me "}, {"reasoning_content": "think."}, {"content": "4"})
    ask(page, "2 + 2")
    thoughts = answers(page).locator("details")
    expect(thoughts).to_contain_text("Let me think.")
    expect(thoughts).not_to_have_attribute("open", "")
    thoughts.locator("summary").click()
    expect(thoughts.get_by_text("Let me think.")).to_be_visible()
    asked = play(page, {"content": "5"})
    ask(page, "And one more?")
    expect(answers(page).last).to_contain_text("5")
    assert asked[0]["messages"][1] == {"role": "assistant", "content": "4"}  # without its thoughts


def test_tool_calls_are_shown_and_their_results_sent_back(page: Page) -> None:
    head = {"index": 0, "id": "call_1", "function": {"name": "get_weather", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"city":', '"Paris"}')]
    other = {"index": 1, "id": "call_2", "function": {"name": "get_time", "arguments": "{}"}}
    deltas = [{"tool_calls": [call]} for call in (head, *rest, other)]
    play(page, *deltas, finish="tool_calls")
    ask(page, "What is the weather in Paris?")
    expect(answers(page)).to_contain_text('"city": "Paris"')
    page.get_by_label("What get_weather gave back").fill("sunny")
    page.get_by_label("What get_time gave back").fill("noon")
    asked = play(page, {"content": "It is sunny."})
    page.get_by_role("button", name="Send results").click()
    expect(answers(page).last).to_contain_text("It is sunny.")
    _, called, *results = asked[0]["messages"]
    assert called["tool_calls"][0]["function"]["arguments"] == '{"city":"Paris"}'
    assert results == [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    ]


EVIL = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script>\n\n[x](javascript:alert(3))\n\n"
    "```html\n<b>bold</b>\n```\n\n- one **two** `<i>`\n- three\n\n"
)


def test_what_a_model_writes_is_shown_as_text_and_never_run(page: Page) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    play(page, {"reasoning_content": EVIL}, {"content": EVIL})
    ask(page, EVIL)
    answer = answers(page)
    expect(answer.locator("pre")).to_have_text("<b>bold</b>")
    expect(answer.locator("li")).to_have_text(["one two <i>", "three"])
    expect(answer.locator("strong")).to_have_text("two")
    expect(answer).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#talk :is(img, script, a, i, b)").count() == 0
    assert dialogs == []


def test_an_error_is_told_and_can_be_tried_again(page: Page) -> None:
    page.route(CHAT, lambda route: route.fulfill(
        content_type="text/event-stream",
        body='data: {"choices":[{"index":0,"delta":{"content":"Half"}}]}\n\n'
             'data: {"error":{"message":"the device is on fire"}}\n\ndata: [DONE]\n\n'))  # fmt: skip
    ask(page, "Go")
    expect(page.get_by_role("alert").filter(has_text="the device is on fire")).to_be_visible()
    expect(answers(page)).to_contain_text("Half")
    asked = play(page, {"content": "Whole."})
    page.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_contain_text("Whole.")
    expect(answers(page)).to_have_count(1)
    assert asked[0]["messages"] == [{"role": "user", "content": "Go"}]


def test_the_server_s_own_refusal_reaches_the_reader(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill("999999999999999999999")
    ask(page, "Go")
    expect(answers(page).get_by_role("alert")).to_contain_text("max_tokens")


def test_live_shows_load_tree_ops_and_errors(page: Page, server: ServerProcess) -> None:
    server.ask("POST", "/generate", {"text": 7})
    server.post("/v1/completions", {"prompt": "A tree that is drawn. " * 20, "max_tokens": 40})
    server.post("/v1/completions", {"prompt": "A tree that is drawn. " * 12 + "No. " * 20})
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#running")).to_have_text("0")
    expect(page.locator("#ops")).to_contain_text("attention")
    expect(page.locator("#errors")).to_contain_text("/generate")
    expect(page.locator("#memory-note")).to_contain_text("Room for")
    expect(page.locator("#tree-note")).to_contain_text("tokens in the tree")
    expect(page.locator("#chart path.line")).to_have_count(2)
    kept = page.get_by_role("meter", name="Kept as cache")
    expect(kept).to_have_attribute("aria-valuenow", re.compile(r"\d+"))
    tree = page.get_by_role("group", name="Prefix tree")
    expect(tree.get_by_text("A tree that")).not_to_have_count(0)
    tree.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tree-text")).to_have_text(re.compile(r"^\d+ tokens, (kept|used by)"))


def test_the_live_view_asks_only_while_somebody_looks(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#running")).to_have_text("0")
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#running")).to_be_hidden()
    page.wait_for_timeout(500)  # what had been asked for is there
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []


def test_open_requests_are_shown_while_they_run(page: Page, server: ServerProcess) -> None:
    page.get_by_role("link", name="Live").click()
    body = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    connection = server.send("POST", "/v1/completions", body)
    expect(page.locator("#requests")).to_contain_text("/v1/completions")
    expect(page.locator("#running")).to_have_text("1")
    connection.close()
    expect(page.locator("#requests")).to_contain_text("None at the moment.")


def test_a_server_with_a_key_asks_for_it_once(
    browser: Browser, locked: ServerProcess, complaints: list[str]
) -> None:
    context = browser.new_context()
    page = context.new_page()
    watch(page, complaints)
    page.goto(f"http://127.0.0.1:{locked.port}/#/live")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#model")).to_have_text("inarch-tiny")
    expect(page.locator("#running")).to_have_text("0")
    page.reload()
    expect(page.locator("#running")).to_have_text("0")
    expect(dialog).to_be_hidden()
    context.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["chat", "live"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen_and_text_can_be_read(
    browser: Browser, server: ServerProcess, scheme: Any, view: str, width: int
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 740})
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/#/{view}")
    expect(page.locator("#model")).to_have_text("inarch-tiny")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for pair in (("body", "body"), ("#model", "body"), (".main", ".main")):
        assert page.evaluate(CONTRAST, pair) >= 4.5, pair
    context.close()


CONTRAST = """([front, back]) => {
  const light = (name, property) => {
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.fillStyle = getComputedStyle(document.querySelector(name))[property];
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const [dark, bright] = [light(front, "color"), light(back, "backgroundColor")].sort((a, b) => a - b);
  return (bright + .05) / (dark + .05);
}"""


def test_everything_can_be_reached_and_used_with_the_keyboard(page: Page) -> None:
    play(page, {"content": "Hi."})
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    expect(answers(page)).to_contain_text("Hi.")
    for name in ("Send", "Settings"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("System prompt")).to_be_visible()
    page.get_by_label("System prompt").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_label("System prompt")).to_be_hidden()


def test_every_control_has_a_name(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    controls = "input, textarea, select, button, [role=meter]"
    nameless = page.evaluate(
        """controls => [...document.querySelectorAll(controls)]
            .filter(node => !(node.labels?.length || node.ariaLabel || node.textContent.trim()
                              || node.getAttribute("aria-labelledby")))
            .map(node => node.outerHTML)""",
        controls,
    )
    assert nameless == []


def test_the_page_talks_to_nobody_but_its_server(page: Page, server: ServerProcess) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.reload()
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#running")).to_have_text("0")
    assert hosts == {f"127.0.0.1:{server.port}"}
