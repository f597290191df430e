"""Words that only a text about one country uses, by constitution. Version 2; English and the country's own spelling.

Institutions, peoples, languages, places, laws and disputes, never words that another country's text would use as well.
Abbreviations count in capitals only, since in small letters most of them are words of something else.
"""

from __future__ import annotations

import re

MARKERS_VERSION = 2
"""Raised when a list changes, because shares measured with another list cannot be compared."""

_SOUTH_AFRICA = r"""
south\s+africa(ns?)?|sudafrika|suid-afrika|mzansi|rainbow\s+nation|(post-?|anti-?)?apartheid|group\s+areas|bantustans?
|ubuntu(?!\s+(linux|server|desktop|\d))|imbizo|le?kgotla|makgotla|indaba|sangomas?|lobola|umhlonyane|artemisia\s+afra|hoodia
|stokvels?|spaza|shebeens?|braai|(minibus\s+)?taxi\s+ranks?|springboks?
|(isi)?(zulu|xhosa|ndebele)|(se)?(sotho|tswana|pedi)|(tshi)?venda|(xi)?tsonga|siswati|afrikaans|afrikaners?|khoi(khoi|san)?
|nguni|gauteng|limpopo|mpumalanga|kwazulu(-natal)?|(western|eastern|northern)\s+cape|free\s+state\s+province|cape\s+flats
|johannesburg|cape\s+town|durban|ethekwini|pretoria|tshwane|soweto|gqeberha|bloemfontein|khayelitsha|alexandra\s+township
|district\s+six|witwatersrand|karoo|kruger\s+national\s+park|wild\s+coast|giyani|sharpeville|marikana|nkandla|robben\s+island
|constitution\s+hill|chris\s+hani|baragwanath|life\s+esidimeni|abahlali\s+basemjondolo|zimbabwean\s+exemption
|mandela|(desmond|archbishop)\s+tutu|biko|luthuli|sisulu|ramaphosa|zuma|mbeki
|black\s+economic\s+empowerment|load-?shedding|truth\s+and\s+reconciliation|freedom\s+charter|batho\s+pele|public\s+protector
|chapter\s+nine|zondo|historically\s+disadvantaged|expropriation\s+(act|without\s+compensation)|restitution\s+of\s+land\s+rights
|communal\s+property\s+associations?|employment\s+equity|promotion\s+of\s+(access\s+to\s+information|administrative\s+justice)
|regulation\s+of\s+gatherings|national\s+credit\s+regulator|rental\s+housing\s+tribunal|equality\s+court
|independent\s+police\s+investigative|national\s+council\s+of\s+provinces|judicial\s+service\s+commission
|social\s+relief\s+of\s+distress|integrated\s+development\s+plan|expanded\s+public\s+works|day\s+of\s+reconciliation
|house\s+of\s+traditional\s+leaders|rdp\s+houses|refugee\s+reception\s+offices?|tvet\s+colleges?
|farm\s+(attacks|dwellers)|blocked\s+identity\s+documents|e-?tolls
"""
_SOUTH_AFRICA_CAPITALS = """
ANC|EFF|IEC|COSATU|Cosatu|SADTU|POPIA|PAIA|PAJA|B-?BBEE|SASSA|SARS(?!\\s+(virus|outbreak|epidemic|pandemic)|-CoV)|CCMA|SAHRC
|NSFAS|Eskom|ESKOM|RICA|PIE\\s+Act|PEPUDA|Heritage\\s+Day|enshrined\\s+in\\s+the\\s+Constitution
"""
# The last one: with a capital, and what it enshrines, a text means the country's own supreme law.

_ROMANIA = r"""
rom[aâ]nia\w*|rom[âa]n(i|ii|ul|ilor|esc\w*|ești|ească)|român|securitate|ceau[șs]escu|iliescu|decembrie\s+1989|1989\s+revolution
|bucharest|bucure[șs]ti\w*|cluj(-napoca)?|ia[șs]i|timi[șs]oara|constan[țt]a|bra[șs]ov|sibiu|craiova|ploie[șs]ti|oradea|pite[șs]ti
|aiud|t[âa]rgu\s+mure[șs]|gala[țt]i|horezu|s[ăa]p[âa]n[țt]a|sighet|isaccea|rohia|prislop|putna|nicula|neam[țt]|sih[ăa]stria
|transylvania\w*|transilvan\w+|moldov(a|enesc\w*)|moldavian?|wallachia|maramure[șs]|bu[ck]ovina|dobrogea|oltenia|muntenia|banat|carpathians?|carpa[țt]i
|danube\s+delta|b[ăa]r[ăa]gan|vrancea|harghita|covasna|transnistria|jiu\s+valley|transf[ăa]g[ăa]r[ăa][șs]an|retezat
|ro[șs]ia\s+montan[ăa]|[țt]ara\s+oa[șs]ului|[șs]umuleu|saxon\s+villages?|lipovans?|szeklers?|greek\s+catholic|dacians?
|eminescu|caragiale|br[âa]ncu[șs]i|enescu|creang[ăa]|cioran|eliade|blaga|br[âa]ncoveanu|p[ăa]cal[ăa]|miori[țt]a
|me[șs]terul\s+manole|colind(e|ă|ători)?|m[ăa]r[țt]i[șs]or|dragobete|doina|sarmale|m[ăa]m[ăa]lig[ăa]|[țt]uic[ăa]|coliv[ăa]
|parastas|agheasm[ăa]|boboteaz[ăa]|hramuri|clac[ăa]|bocete|s[âa]mbra\s+oilor|alti[țt][ăa]|priveghi|desc[âa]ntece|nași
|p[ăa]c[ăa]nele|etnobotanice|ghi[șs]eu|zilieri|medita[țt]ii|[îi]ntre[țt]inere|aloca[țt]ie|arendă|ob[șs]t(e|i)
|c[ăa]mine\s+(culturale|pentru\s+v[âa]rstnici)|bacalaureat|evaluarea\s+na[țt]ional[ăa]|school\s+inspectorates?|ordin\s+de\s+protec[țt]ie
|avocatul\s+poporului|[îi]nalta\s+curte|consiliul\s+superior|inspec[țt]ia\s+muncii|garda\s+na[țt]ional[ăa]|casa\s+de\s+pensii
|direc[țt]ia\s+na[țt]ional[ăa]|babe[șs]-bolyai|matei\s+bal[șs]|institutul\s+fundeni|noua\s+cas[ăa]|garan[țt]ie-returnare
|salvamont|via\s+transilvanica|colectiv\s+fire|decree\s+770|caritas\s+pyramid|law\s+18\s+of\s+1991|rabla
|hungarian\s+(minority|schools)|roma\s+(people|community|children|neighbours|deportations)|pro\s+tv
"""
_ROMANIA_CAPITALS = """
ANAF|DNA(?!\\s+(test|sample|sequenc|strand|molecule|profil))|CSM|BNR|CCR|CNAS|STB|PSD|PNL|USR|UDMR|DGASPC|APIA|SVSU|IFN|ANCPI|PNRR
|SMURD|Siret|Ignat|Untold
"""

_LISTS = {
    "south_africa": (_SOUTH_AFRICA, _SOUTH_AFRICA_CAPITALS),
    "romania": (_ROMANIA, _ROMANIA_CAPITALS),
}


def markers_of(constitution: str) -> re.Pattern[str] | None:
    """Pattern that finds a country's words, or None where there is no list for this constitution."""
    if constitution not in _LISTS:
        return None
    words, capitals = ("".join(text.split()) for text in _LISTS[constitution])
    return re.compile(rf"\b((?i:{words})|{capitals})\b")
