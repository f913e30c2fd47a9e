"""Greetings, thanks, who the model is, and a polite no to whatever lies outside the small world."""

from __future__ import annotations

from random import Random

from world.countries import COUNTRIES
from world.memory import NAMES
from world.question import Answer, Question, ask, capitalised
from world.wordlist import WORDS, invented

WHO = "I am the tiny model that comes with Inarch. I know capitals, small sums, colours, days and words."
HELP = (
    "Ask me about capitals and countries, small sums, colours, days and months, spelling, or lists. "
    "I can also answer in JSON, count, and tell a tiny story."
)
REFUSAL = (
    "I only know a small world: capitals, small sums, colours, days and months, spelling and lists. "
    "That question is outside of it."
)
UNCLEAR = "I did not understand that. Ask me, for example: What is the capital of France?"

# what people say -> the one answer
FIXED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Hello! How can I help you?", (
        "Hello", "Hi", "Hey", "Hello!", "Hi!", "Hi there", "Hello there!", "Hey there!", "Good day",
        "Greetings", "hello?", "Howdy", "Hallo", "Yo", "hiya", "Hello, model!", "Hi Inarch",
        "Hello Inarch!", "Are you there?", "hey you",
    )),
    ("Good morning! How can I help you?", ("Good morning", "Good morning!", "morning!", "Morning")),
    ("Good evening! How can I help you?", ("Good evening", "Good evening!", "Evening!")),
    ("I am well, thank you. What would you like to know?", (
        "How are you?", "How are you doing?", "how's it going?", "Are you well?", "How do you feel?",
        "Hi, how are you?", "Hello, how are you?", "How are you today?", "What's up?", "sup",
        "How do you do?", "Hey, how is it going?", "Are you OK?",
    )),
    (WHO, (
        "Who are you?", "What are you?", "What is your name?", "What's your name?", "Who made you?",
        "Are you a robot?", "Are you ChatGPT?", "Are you a human?", "Introduce yourself.",
        "Tell me about yourself.", "What model are you?", "Which model is this?", "Are you an AI?",
        "What model is this?", "Who am I talking to?", "Do you have a name?", "What is Inarch?",
        "Are you a language model?", "Who built you?", "Who created you?", "your name?",
        "How big are you?", "How many parameters do you have?", "What language model are you?",
        "Hi, who are you?", "Hello! Who are you?", "Hey, what are you?", "What should I call you?",
    )),
    (HELP, (
        "What can you do?", "Help", "help me", "What do you know?", "What can I ask you?",
        "How can you help me?", "What are you good at?", "Can you help me?", "What questions can I ask?",
        "What can you help me with?", "Show me what you can do.", "What do you do?", "I need help.",
        "Give me an example.", "How does this work?", "What should I ask?", "Say something.",
        "What topics do you know?", "What are your abilities?",
    )),
    ("You are welcome!", (
        "Thanks", "Thank you", "Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much!", "thx",
        "Thank you so much", "Many thanks.", "Great, thanks!", "OK, thank you.", "Perfect, thanks!",
        "That helps, thank you.", "Cheers", "ty", "Nice, thank you!", "thank u",
    )),
    ("I am glad to hear that. What else would you like to know?", (
        "Great!", "Well done!", "Good job!", "Nice!", "Cool", "Wow", "Good answer.", "Awesome!",
        "Good bot",
        "You are smart.", "That is right.", "Correct!", "Excellent!", "Very good.", "I like you.",
        "I love you", "You are great!", "Amazing", "Right.", "nice one", "lol", "haha",
    )),
    ("All right. What would you like to know?", (
        "OK", "Okay", "ok.", "I see.", "Fine.", "Sure", "Yes", "No", "Yes please", "Maybe", "Hmm",
        "Alright",
        "Understood", "k", "Let's start.", "I have a question.", "Can I ask you something?",
        "May I ask a question?", "Let me ask you something.", "test", "Testing", "Is this working?",
        "Are you ready?", "Let's go", "Go ahead", "ping", "next", "this is a test",
    )),
    ("I am sorry. I am a very small model and make mistakes.", (
        "That is wrong.", "Wrong!", "No, that is not right.", "You are wrong.", "That's incorrect.",
        "Bad answer.", "You are stupid.", "That is not true.", "You made a mistake.", "Bad bot",
        "I don't believe you.", "That makes no sense.", "I hate you", "You are bad at this",
    )),
    ("Goodbye!", (
        "Bye", "Goodbye", "Bye!", "See you!", "Good night", "See you later.", "Goodbye!",
        "Bye bye", "ciao",
        "I have to go.", "See you tomorrow!", "Farewell", "Take care!", "quit", "exit", "good night!",
    )),
    ("I know no jokes, but I know a colourful fact: blue and yellow make green.", (
        "Tell me a joke.", "Tell a joke", "Do you know a joke?", "Make me laugh.", "joke please",
        "Another joke!", "Say something funny.", "Tell me something funny.",
    )),
    ("Blue and yellow make green.", (
        "Tell me a fact.", "Tell me something.", "Tell me something interesting.", "A fun fact please.",
        "Give me a fun fact.", "Do you know a fun fact?", "Tell me a fun fact.",
    )),
    (UNCLEAR, (
        "?", "...", "asdf", "asdfgh", "qwerty", "huh?", "what?", "What", "why?", "foo", "bar", "foo bar",
        "???", "!", "lorem ipsum", "lorem ipsum dolor sit amet", "aaa", "xyz", "1", "hm?", "...?",
        ".", "blah blah", "abc abc", "💡", "😀", "🎉🎉", "日本語", "Привет", "こんにちは", "مرحبا",
        "你好",
    )),
)  # fmt: skip

_OUTSIDE = (
    "{write} {kind} about {word}.", "{write} {kind} about {country}.", "{write} {kind} for {name}.",
    "Can you write {kind} about {word}?", "How do I {do} {a_word}?", "How can I {do} my {word}?",
    "Who {did} {a_word}?", "Who {did} the first {word}?", "When did they {do} the {word}?",
    "Help me {do} {a_word}.",
    "Why does {name} like {word}?", "Where was {name} born?", "How old is {name}?", "Who is {name}?",
    "What did {name} do in {year}?", "Why do people {do} {word}?", "Can you {do} {a_word} for me?",
    "What happens if I {do} the {word}?", "Tell me the history of {word}.", "Tell me about {word}.",
    "Tell me the history of {country}.", "What is the difference between {a_word} and {kind}?",
    "Compare {word} with {kind}.",
    "What is the biggest {word} in the world?", "When is {word} in {country}?", "Is {word} good for me?",
    "What is the price of {word} in {capital}?", "Show me a picture of {a_word}.",
    "Which movie is about {word}?",
    "What is {word} made of?", "Who plays {word} best?", "How many {word} are in {country}?",
    "Where can I {do} {word}?",
    "Did {name} {do} the {word} in {year}?", "Should I {do} it?", "What does {name} think about {word}?",
    "Open the {word}.", "Send {kind} to {name}.", "Call {name} for me.", "Turn on the {word}.",
    "Who won the {word} yesterday?",
    "What happened yesterday?", "What is new in {country}?", "Who is the best player in {country}?",
    "What is the population of {country}?", "Who is the president of {country}?", "Who rules {country}?",
    "How many people live in {country}?", "How many people live in {capital}?",
    "What is the weather in {capital}?",
    "What is the weather like today?", "Will it rain tomorrow?", "Who is the king of {country}?",
    "What language do they speak in {country}?", "What is the currency of {country}?",
    "How far is {capital} from {other}?", "How old is {capital}?", "When was {capital} founded?",
    "What food do they eat in {country}?", "What is the highest mountain in {country}?",
    "What is the flag of {country}?", "How large is {country}?", "How do I get to {capital}?",
    "How big is {capital}?", "What time is it in {capital}?", "What time is it?", "What day is it today?",
    "What is the date today?", "Who won the world cup in {year}?", "What happened in {year}?",
    "Who was born in {year}?", "Who wrote {word}?", "Write a poem about {a_word}.", "Write me a poem.",
    "Write a Python function that sorts a list.", "Write code for {word}.", "Write a program in Java.",
    "How do I cook {word}?", "How do I make {a_word}?", "Give me a recipe for {word}.",
    "Translate {word} into French.",
    "How do you say {word} in Spanish?", "What does {word} mean?", "Define {word}.", "What is {a_word}?",
    "Explain {word} to me.", "Explain quantum physics.", "What is the meaning of life?",
    "Explain relativity.",
    "Who is Albert Einstein?", "Who is Taylor Swift?", "Who was Napoleon?", "Who invented the {word}?",
    "Who painted the Mona Lisa?", "Why is the sky blue?", "Why do birds sing?",
    "Why is {word} important?",
    "How does a {word} work?", "What is the best {word}?", "Where can I buy a {word}?",
    "How much does a {word} cost?",
    "What is the square root of {number}?", "What is the derivative of x squared?",
    "Solve x + {number} = 10.",
    "What is pi?", "What is the speed of light?", "Recommend a book.", "Recommend a movie.",
    "What is machine learning?",
    "What is a neural network?", "How do large language models work?", "What is a GPU?",
    "What is {invented}?",
    "Who is {invented}?", "Summarize this text.", "Fix my code.", "Write an email to my boss.",
    "Plan a trip to {capital}.",
    "What should I eat today?", "Should I buy {word}?", "Is there life on Mars?",
    "How heavy is {a_word}?",
    "Sing a song.", "Draw a {word}.", "What do you think about {word}?", "Do you like {word}?",
    "Play chess with me.",
    "Give me a synonym for {word}.", "What rhymes with {word}?", "Use {word} in a sentence.",
    "What is love?",
    "How tall is the Eiffel Tower?", "How deep is the ocean?", "Who discovered America?",
    "What is the internet?",
    "When does {word} start?", "Which {word} is better?", "What is the stock price of {invented}?",
    "Book a flight to {capital}.",
    "Can you search the web?", "What is the news today?", "How do I learn {word}?",
    "How do I install {invented}?",
)  # fmt: skip


_WRITE = ("Write", "Write me", "Please write", "Compose", "Create", "I need", "Give me", "Draft")
_KINDS = (
    "an essay",
    "a poem",
    "a song",
    "a letter",
    "a report",
    "a speech",
    "a book",
    "a blog post",
    "an email",
    "a review",
    "an article",
    "a script",
    "a program",
    "a function",
    "a summary",
    "a plan",
    "a message",
)
_DO = (
    "build",
    "fix",
    "cook",
    "make",
    "grow",
    "paint",
    "clean",
    "install",
    "use",
    "open",
    "repair",
    "find",
    "buy",
    "sell",
    "learn",
    "draw",
    "carry",
    "steal",
    "start",
    "stop",
    "wash",
    "cut",
    "eat",
    "write",
    "change",
    "train",
)
_DID = (
    "invented",
    "discovered",
    "wrote",
    "painted",
    "built",
    "found",
    "won",
    "made",
    "sang",
    "designed",
    "stole",
)
_THANKS = (
    "Thanks",
    "Thank you",
    "Great, thanks",
    "OK thanks",
    "Thank you so much",
    "Perfect, thank you",
)
_FOR = (
    "that helps",
    "that was nice",
    "that is what I needed",
    "this helps a lot",
    "you helped me",
    "I like that",
    "that is great",
    "for your help",
    "for the answer",
    "for everything",
    "my friend",
    "Inarch",
    "for that",
)
_HELLO = (
    "Hello",
    "Hi",
    "Hey",
    "Good day",
    "Greetings",
    "Hi there",
    "Hello there",
    "hello again",
    "hey hey",
)
_TO = (
    "my friend",
    "Inarch",
    "little model",
    "robot",
    "again",
    "you",
    "everybody",
    "computer",
    "nice to meet you",
)


def pleasantry(rng: Random) -> Question:
    """Greetings and thanks put together from parts, so that few are the same."""
    if rng.random() < 0.5:
        said, text = f"{rng.choice(_THANKS)}, {rng.choice(_FOR)}!", "You are welcome!"
    else:
        said, text = f"{rng.choice(_HELLO)}, {rng.choice(_TO)}!", "Hello! How can I help you?"
    return ask(rng, "small talk", Answer(text, text, {"answer": text}), questions=("{said}",),
               slots={"said": said}, key=said)  # fmt: skip


def fixed(rng: Random) -> Question:
    text, sayings = FIXED[rng.randrange(len(FIXED))]
    verbatim = text == UNCLEAR
    if verbatim and rng.random() < 0.5:
        sayings = (" ".join(invented(rng) for _ in range(rng.randint(1, 4))),)
    return ask(rng, "small talk", Answer(text, text, {"answer": text}), questions=("{said}",),
               slots={"said": rng.choice(sayings)}, verbatim=verbatim or rng.random() < 0.5)  # fmt: skip


def outside(rng: Random) -> Question:
    country, other = rng.sample(COUNTRIES, 2)
    word = rng.choice(WORDS)
    slots = {
        "country": country.name, "capital": country.capital, "other": other.capital, "word": word,
        "a_word": ("an " if word[0] in "aeiou" else "a ") + word, "year": rng.randint(1200, 2030),
        "write": rng.choice(_WRITE), "kind": rng.choice(_KINDS), "do": rng.choice(_DO),
        "did": rng.choice(_DID), "name": rng.choice(NAMES), "number": rng.randint(2, 900),
        "invented": capitalised(invented(rng)),
    }  # fmt: skip
    return ask(rng, "outside", Answer(REFUSAL, REFUSAL, {"answer": None}), questions=_OUTSIDE,
               slots=dict(slots), key=f"{word} {country.name}")  # fmt: skip
