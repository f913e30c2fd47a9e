"""Common short words to spell, and how to make up words that nobody has seen."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

WORDS = """
able about above act add age air all also animal answer apple arm art ask autumn away baby back bad
ball banana bank barn basket bath beach bear beautiful bed bee begin bell best bicycle big bird
birthday black blanket blue boat body book boot bottle bottom bowl box boy branch brave bread break
bridge bright bring broom brother brown brush bucket build burn bus busy butter button buy cake call
calm camel camera candle car card carpet carrot castle cat catch chair chalk change cheese cherry
child circle city clean clear climb clock close cloth cloud coat coffee coin cold colour come
computer cook cookie corner count country cousin cover cow crayon cream crown cup curtain cut dance
danger dark daughter day deep deer desk dinner dish doctor dog doll dolphin door dragon draw dream
dress drink drive drum dry duck dust eagle ear early earth east easy eat egg eight elephant empty end
engine evening eye face fact fair family far farm fast father feather feed field finger fire fish
five flag floor flour flower fly food foot forest fork forty four fox fresh friend frog front fruit
full fun game garden gate giant gift giraffe girl give glad glass glove goat gold good grandmother
grape grass great green grey ground group grow guitar hair half hall hammer hand happy hard hat head
hear heart heavy hello help hen high hill holiday home honey hope horse hospital hot hour house
hungry ice idea island jacket jam jar job joke juice jump jungle keep kettle key kind king kitchen
kite kitten knee knife ladder lake lamb lamp language large laugh leaf learn left leg lemon letter
library light line lion list listen little live long look love low lunch machine magic mail make
map market mask match meadow meal meat metal middle milk mind minute mirror mississippi money monkey
month moon morning mother mountain mouse mouth move mouse music nail name narrow nature neck needle
nest net never new night nine noise north nose note number nurse nut ocean office oil old onion open
orange orchard owl page paint paper parent park party path pear pen pencil people pepper picture pig
pillow pink pipe plane planet plant plate play please pocket poem point pond pony potato present
pretty prince pull pumpkin puppet purple purse push puzzle queen question quick quiet rabbit radio
rain rainbow read red rice rich ride right ring river road robot rock roof room rope rose round
rubber run sad safe sail salt sand school science scissors sea season seat secret seed seven shadow
shape sheep shell shine ship shirt shoe shop short shoulder silver sing sister six skin sky sleep
slow small smile smoke snail snake snow soap sock soft song soup south space spider spoon spring
square squirrel stable stairs star station stone stop storm story strawberry street string strong
student sugar summer sun sweater sweet swim table tail tall tea teacher teeth ten tent thank thick
thing thumb thunder ticket tiger time tired toast today toe tomato tomorrow tooth top tower town toy
train travel treasure tree triangle trip truck true trumpet turtle twelve twenty umbrella uncle under
valley vegetable very village violin visit voice wagon walk wall warm wash watch water wave weather
week west whale wheat wheel whisper white wide wild wind window wing winter wise wolf woman wonder
wood wool word work world write yard year yellow yes young zebra zero zoo
hippopotamus refrigerator dictionary encyclopedia alphabet kangaroo crocodile chocolate adventure
knowledge necessary rhythm inarch python server token cache kernel model tensor scheduler memory
""".split()
WORDS = list(dict.fromkeys(WORDS))

_ONSETS = (
    "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr sh sl st tr".split()
)
_VOWELS = "a e i o u ai ea ee oo ou".split()
_CODAS = ["", "", "", "b", "ck", "d", "g", "l", "m", "n", "nd", "p", "r", "s", "st", "t", "x"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def invented(rng: Random) -> str:
    """A pronounceable word, or now and then plain letters: spelling must not rest on memory."""
    if rng.random() < 0.2:
        return "".join(rng.choices(_LETTERS, k=rng.randint(2, 8)))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.choice((1, 2, 2, 3)))
    )
