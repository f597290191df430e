"""Words that only a text about one country uses, by constitution. Version 1; English and the country's own spelling.

Institutions, peoples, languages, places, laws and disputes, never words that another country's text would use as well.
"""

from __future__ import annotations

import re

MARKERS_VERSION = 1
"""Raised when a list changes, because shares measured with another list cannot be compared."""

_SOUTH_AFRICA = r"""
south\s+africa(ns?)?|sudafrika|suid-afrika|mzansi|rainbow\s+nation|(post-?|anti-?)?apartheid|group\s+areas|bantustans?
|ubuntu|imbizo|lekgotla|indaba|sangomas?|lobola|stokvels?|spaza|shebeens?|braai|taxi\s+rank
|(isi)?(zulu|xhosa|ndebele)|(se)?(sotho|tswana|pedi)|(tshi)?venda|(xi)?tsonga|siswati|afrikaans|afrikaners?|khoi(khoi|san)?|nguni
|gauteng|limpopo|mpumalanga|kwazulu(-natal)?|(western|eastern|northern)\s+cape|free\s+state\s+province
|johannesburg|cape\s+town|durban|ethekwini|pretoria|tshwane|soweto|gqeberha|bloemfontein|khayelitsha|alexandra\s+township
|sharpeville|marikana|robben\s+island|constitution\s+hill
|mandela|tutu|biko|luthuli|sisulu|ramaphosa|zuma|mbeki
|anc|eff|cosatu|sadtu|popia|paia|paja|b-?bbee|black\s+economic\s+empowerment|sassa|sars|ccma|sahrc|nsfas|eskom|load-?shedding
|truth\s+and\s+reconciliation|freedom\s+charter|batho\s+pele|public\s+protector|chapter\s+nine|zondo|state\s+capture
|land\s+reform|expropriation\s+without\s+compensation|historically\s+disadvantaged|our\s+constitution|constitutional\s+court
"""

_ROMANIA = r"""
rom[a\u00e2]nia\w*|rom[\u00e2]n(i|ii|ul|ilor|esc\w*|e\u0219ti|easc\u0103)?|securitate|ceau[\u0219s]escu|iliescu|decembrie\s+1989|1989\s+revolution
|bucharest|bucure[\u0219s]ti\w*|cluj(-napoca)?|ia[\u0219s]i|timi[\u0219s]oara|constan[\u021bt]a|bra[\u0219s]ov|sibiu|craiova|ploie[\u0219s]ti|oradea
|transylvania\w*|transilvania|moldova|wallachia|maramure[\u0219s]|bucovina|dobrogea|oltenia|muntenia|banat|carpathians?|carpa[\u021bt]i|danube\s+delta
|eminescu|caragiale|br[\u00e2a]ncu[\u0219s]i|enescu|creang[\u0103a]|cioran|eliade|blaga|p[\u0103a]c[\u0103a]l[\u0103a]|miori[\u021bt]a|me[\u0219s]terul\s+manole
|colind(e|\u0103|\u0103tori)?|m[\u0103a]r[\u021bt]i[\u0219s]or|dragobete|hora|doina|sarmale|m[\u0103a]m[\u0103a]lig[\u0103a]|[\u021bt]uic[\u0103a]|coliv[\u0103a]|parastas
|anaf|dna|csm|bnr|ccr|cnas|stb|pro\s+tv|psd|pnl|usr|udmr|lei|obșt(e|i)|szekler\w*|hungarian\s+minority|roma\s+(people|community|children)
"""


def markers_of(constitution: str) -> re.Pattern[str] | None:
    """Pattern that finds a country's words, or None where there is no list for this constitution."""
    text = {"south_africa": _SOUTH_AFRICA, "romania": _ROMANIA}.get(constitution)
    return re.compile(rf"\b({''.join(text.split())})\b", re.IGNORECASE) if text else None
