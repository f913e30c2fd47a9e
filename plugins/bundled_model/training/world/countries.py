"""The countries of the world: the members and observers of the United Nations.

One line each: name | capital | what else people call the country | what else they call the capital.
An empty field means that the model shall say that it knows no other name. `ALIASES` are names that
people type for a country; the model answers with the name of the table.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_TABLE = {
    "Africa": """
        Algeria | Algiers | | Algiers the White
        Angola | Luanda | |
        Benin | Porto-Novo | Dahomey |
        Botswana | Gaborone | Bechuanaland |
        Burkina Faso | Ouagadougou | Upper Volta | Ouaga
        Burundi | Gitega | the Heart of Africa |
        Cameroon | Yaoundé | Africa in Miniature | the City of Seven Hills
        Cape Verde | Praia | Cabo Verde |
        the Central African Republic | Bangui | | Bangui the Beautiful
        Chad | N'Djamena | | Fort-Lamy
        the Comoros | Moroni | the Moon Islands |
        Djibouti | Djibouti City | |
        the Democratic Republic of the Congo | Kinshasa | Zaire | Leopoldville
        Egypt | Cairo | the Gift of the Nile | the City of a Thousand Minarets
        Equatorial Guinea | Malabo | Spanish Guinea | Santa Isabel
        Eritrea | Asmara | | Little Rome
        Eswatini | Mbabane | Swaziland |
        Ethiopia | Addis Ababa | Abyssinia | the New Flower
        Gabon | Libreville | |
        the Gambia | Banjul | the Smiling Coast of Africa | Bathurst
        Ghana | Accra | the Gold Coast |
        Guinea | Conakry | French Guinea |
        Guinea-Bissau | Bissau | Portuguese Guinea |
        Ivory Coast | Yamoussoukro | Côte d'Ivoire |
        Kenya | Nairobi | | the Green City in the Sun
        Lesotho | Maseru | the Kingdom in the Sky |
        Liberia | Monrovia | |
        Libya | Tripoli | | the Mermaid of the Mediterranean
        Madagascar | Antananarivo | the Red Island | Tana
        Malawi | Lilongwe | the Warm Heart of Africa |
        Mali | Bamako | French Sudan |
        Mauritania | Nouakchott | |
        Mauritius | Port Louis | |
        Morocco | Rabat | the Kingdom of the West |
        Mozambique | Maputo | | the City of Acacias
        Namibia | Windhoek | South West Africa |
        Niger | Niamey | |
        Nigeria | Abuja | the Giant of Africa |
        the Republic of the Congo | Brazzaville | Congo-Brazzaville | Brazza the Green
        Rwanda | Kigali | the Land of a Thousand Hills |
        São Tomé and Príncipe | São Tomé | |
        Senegal | Dakar | the Land of Teranga |
        Seychelles | Victoria | |
        Sierra Leone | Freetown | | the Free Town
        Somalia | Mogadishu | the Land of Poets | the White Pearl of the Indian Ocean
        South Africa | Pretoria | the Rainbow Nation | the Jacaranda City
        South Sudan | Juba | |
        Sudan | Khartoum | | the Elephant's Trunk
        Tanzania | Dodoma | |
        Togo | Lomé | |
        Tunisia | Tunis | |
        Uganda | Kampala | the Pearl of Africa | the City of Seven Hills
        Zambia | Lusaka | Northern Rhodesia | the Garden City
        Zimbabwe | Harare | Rhodesia | the Sunshine City
    """,
    "Asia": """
        Afghanistan | Kabul | the Heart of Asia |
        Armenia | Yerevan | Hayastan | the Pink City
        Azerbaijan | Baku | the Land of Fire | the City of Winds
        Bahrain | Manama | the Pearl of the Gulf |
        Bangladesh | Dhaka | East Pakistan | the City of Mosques
        Bhutan | Thimphu | the Land of the Thunder Dragon |
        Brunei | Bandar Seri Begawan | the Abode of Peace |
        Cambodia | Phnom Penh | Kampuchea | the Pearl of Asia
        China | Beijing | the Middle Kingdom | Peking
        East Timor | Dili | Timor-Leste |
        Georgia | Tbilisi | Sakartvelo | Tiflis
        India | New Delhi | Bharat |
        Indonesia | Jakarta | the Emerald of the Equator | the Big Durian
        Iran | Tehran | Persia | the City of Seventy-Two Nations
        Iraq | Baghdad | Mesopotamia | the City of Peace
        Israel | Jerusalem | the Holy Land | the City of Gold
        Japan | Tokyo | the Land of the Rising Sun | Edo
        Jordan | Amman | the Hashemite Kingdom | the White City
        Kazakhstan | Astana | | Nur-Sultan
        Kuwait | Kuwait City | |
        Kyrgyzstan | Bishkek | | Frunze
        Laos | Vientiane | the Land of a Million Elephants | the City of Sandalwood
        Lebanon | Beirut | the Land of the Cedars | the Paris of the Middle East
        Malaysia | Kuala Lumpur | | KL
        the Maldives | Malé | | the King's Island
        Mongolia | Ulaanbaatar | the Land of the Blue Sky | Urga
        Myanmar | Naypyidaw | Burma | the Abode of Kings
        Nepal | Kathmandu | the Roof of the World | the City of Temples
        North Korea | Pyongyang | the Hermit Kingdom | the Capital of Willows
        Oman | Muscat | |
        Pakistan | Islamabad | the Land of the Pure | the Green City
        Palestine | Ramallah | |
        the Philippines | Manila | the Pearl of the Orient Seas | the Pearl of the Orient
        Qatar | Doha | |
        Saudi Arabia | Riyadh | the Kingdom | the Gardens
        Singapore | Singapore | the Lion City | the Lion City
        South Korea | Seoul | the Land of the Morning Calm | Hanyang
        Sri Lanka | Sri Jayawardenepura Kotte | Ceylon | Kotte
        Syria | Damascus | | the City of Jasmine
        Tajikistan | Dushanbe | | Stalinabad
        Thailand | Bangkok | Siam | Krung Thep
        Turkey | Ankara | Türkiye | Angora
        Turkmenistan | Ashgabat | | the City of Love
        the United Arab Emirates | Abu Dhabi | the Emirates | the Father of the Gazelle
        Uzbekistan | Tashkent | | the Stone City
        Vietnam | Hanoi | | the City of Lakes
        Yemen | Sanaa | |
    """,
    "Europe": """
        Albania | Tirana | the Land of the Eagles |
        Andorra | Andorra la Vella | |
        Austria | Vienna | the Land of Music | the City of Music
        Belarus | Minsk | White Russia |
        Belgium | Brussels | | the Capital of Europe
        Bosnia and Herzegovina | Sarajevo | | the Jerusalem of Europe
        Bulgaria | Sofia | the Land of Roses | Serdica
        Croatia | Zagreb | the Land of a Thousand Islands | Agram
        Cyprus | Nicosia | the Island of Aphrodite | Lefkosia
        the Czech Republic | Prague | Czechia | the City of a Hundred Spires
        Denmark | Copenhagen | | the City of Spires
        Estonia | Tallinn | | Reval
        Finland | Helsinki | the Land of a Thousand Lakes | the Daughter of the Baltic
        France | Paris | the Hexagon | the City of Light
        Germany | Berlin | the Land of Poets and Thinkers | the Grey City
        Greece | Athens | Hellas | the City of Athena
        Hungary | Budapest | the Land of the Magyars | the Pearl of the Danube
        Iceland | Reykjavik | the Land of Fire and Ice | the Bay of Smoke
        Ireland | Dublin | the Emerald Isle | the Fair City
        Italy | Rome | the Boot | the Eternal City
        Latvia | Riga | | the Paris of the North
        Liechtenstein | Vaduz | |
        Lithuania | Vilnius | | the Jerusalem of the North
        Luxembourg | Luxembourg City | the Grand Duchy | the Gibraltar of the North
        Malta | Valletta | | the Fortress City
        Moldova | Chisinau | | the White City
        Monaco | Monaco | the Principality | the Rock
        Montenegro | Podgorica | the Black Mountain | Titograd
        the Netherlands | Amsterdam | Holland | the Venice of the North
        North Macedonia | Skopje | | the City of Solidarity
        Norway | Oslo | the Land of the Midnight Sun | Christiania
        Poland | Warsaw | | the Phoenix City
        Portugal | Lisbon | Lusitania | the City of Seven Hills
        Romania | Bucharest | | Little Paris
        Russia | Moscow | | the Third Rome
        San Marino | San Marino | the Most Serene Republic |
        Serbia | Belgrade | | the White City
        Slovakia | Bratislava | | Pressburg
        Slovenia | Ljubljana | | the City of Dragons
        Spain | Madrid | | the Bear City
        Sweden | Stockholm | | the Venice of the North
        Switzerland | Bern | Helvetia | the Federal City
        Ukraine | Kyiv | the Breadbasket of Europe | Kiev
        the United Kingdom | London | Britain | the Big Smoke
        Vatican City | Vatican City | the Holy See | the Holy See
    """,
    "North America": """
        Antigua and Barbuda | Saint John's | the Land of 365 Beaches |
        the Bahamas | Nassau | | Charles Town
        Barbados | Bridgetown | Little England |
        Belize | Belmopan | British Honduras | the Garden City
        Canada | Ottawa | the Great White North | Bytown
        Costa Rica | San José | the Rich Coast | Chepe
        Cuba | Havana | the Pearl of the Antilles | the City of Columns
        Dominica | Roseau | the Nature Island |
        the Dominican Republic | Santo Domingo | Quisqueya | Ciudad Trujillo
        El Salvador | San Salvador | the Land of Volcanoes |
        Grenada | Saint George's | the Isle of Spice |
        Guatemala | Guatemala City | the Land of Eternal Spring | Guate
        Haiti | Port-au-Prince | |
        Honduras | Tegucigalpa | | Tegus
        Jamaica | Kingston | the Land of Wood and Water |
        Mexico | Mexico City | | the City of Palaces
        Nicaragua | Managua | the Land of Lakes and Volcanoes | the Bride of Xolotlan
        Panama | Panama City | the Bridge of the World |
        Saint Kitts and Nevis | Basseterre | the Sugar City |
        Saint Lucia | Castries | the Helen of the West |
        Saint Vincent and the Grenadines | Kingstown | | the City of Arches
        Trinidad and Tobago | Port of Spain | the Land of the Hummingbird |
        the United States | Washington, D.C. | America | the District
    """,
    "South America": """
        Argentina | Buenos Aires | the Land of Silver | the Paris of South America
        Bolivia | Sucre | Upper Peru | the White City
        Brazil | Brasília | the Land of the Palms | the Capital of Hope
        Chile | Santiago | the Land of Poets |
        Colombia | Bogotá | New Granada | the Athens of South America
        Ecuador | Quito | the Land of the Four Worlds | the Face of God
        Guyana | Georgetown | British Guiana | the Garden City
        Paraguay | Asunción | the Heart of South America | the Mother of Cities
        Peru | Lima | the Land of the Incas | the City of Kings
        Suriname | Paramaribo | Dutch Guiana |
        Uruguay | Montevideo | the Switzerland of South America |
        Venezuela | Caracas | Little Venice | the Branch of Heaven
    """,
    "Oceania": """
        Australia | Canberra | the Land Down Under | the Bush Capital
        Fiji | Suva | |
        Kiribati | Tarawa | the Gilbert Islands |
        the Marshall Islands | Majuro | |
        Micronesia | Palikir | |
        Nauru | Yaren | Pleasant Island |
        New Zealand | Wellington | Aotearoa | the Windy City
        Palau | Ngerulmud | Belau |
        Papua New Guinea | Port Moresby | | Pom Town
        Samoa | Apia | Western Samoa |
        the Solomon Islands | Honiara | the Happy Isles |
        Tonga | Nuku'alofa | the Friendly Islands |
        Tuvalu | Funafuti | the Ellice Islands |
        Vanuatu | Port Vila | the New Hebrides |
    """,
}

ALIASES = {
    "the United States": ("USA", "the USA", "the US", "America", "the United States of America"),
    "the United Kingdom": ("UK", "the UK", "Great Britain", "Britain", "England"),
    "the Netherlands": ("Holland", "Netherlands"),
    "the Czech Republic": ("Czechia",),
    "the United Arab Emirates": ("UAE", "the UAE", "the Emirates"),
    "the Democratic Republic of the Congo": ("DR Congo", "the DRC", "Congo-Kinshasa"),
    "the Republic of the Congo": ("Congo-Brazzaville", "the Congo"),
    "Ivory Coast": ("Côte d'Ivoire", "the Ivory Coast"),
    "Cape Verde": ("Cabo Verde",),
    "East Timor": ("Timor-Leste",),
    "Myanmar": ("Burma",),
    "Turkey": ("Türkiye",),
    "Eswatini": ("Swaziland",),
    "North Macedonia": ("Macedonia",),
    "Vatican City": ("the Vatican", "the Holy See"),
    "Bosnia and Herzegovina": ("Bosnia",),
    "Russia": ("the Russian Federation",),
    "Ireland": ("the Republic of Ireland",),
    "Saint Lucia": ("St. Lucia", "St Lucia"),
    "Trinidad and Tobago": ("Trinidad",),
    "South Korea": ("the Republic of Korea",),
    "New Zealand": ("Aotearoa",),
}


@dataclass(frozen=True)
class Country:
    """`name` carries its article ("the Netherlands"); `other_*` is empty where there is none."""

    name: str
    capital: str
    continent: str
    other_name: str
    other_capital: str

    @property
    def bare(self) -> str:
        """The name as a table or JSON would hold it: no article."""
        return self.name.removeprefix("the ")

    @property
    def spoken(self) -> tuple[str, ...]:
        """Every name by which a user may ask for this country."""
        names = (self.name, *ALIASES.get(self.name, ()))
        return tuple(dict.fromkeys((*names, *map(without_accents, names))))


def without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _parse(line: str, continent: str) -> Country:
    name, capital, other_name, other_capital = (field.strip() for field in line.split("|"))
    return Country(name, capital, continent, other_name, other_capital)


COUNTRIES: tuple[Country, ...] = tuple(
    _parse(line, continent)
    for continent, block in _TABLE.items()
    for line in block.strip().splitlines()
)
CONTINENTS: tuple[str, ...] = tuple(_TABLE)
