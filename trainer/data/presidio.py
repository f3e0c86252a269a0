"""Personal data found by presidio's pattern recognizers, of the extra `pii`. No model is needed, and no network.

presidio wants a spaCy pipeline: a blank one (words, and nothing of their meaning) is enough for its patterns and their
checksums. What needs a model of the language (names, places) is left out, and so are plain URLs.
"""

from __future__ import annotations

import logging
from typing import Any

from trainer.data.personal import Span
from trainer.errors import InvalidConfig

_KINDS = {"EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "IBAN_CODE": "IBAN", "CREDIT_CARD": "CARD"}
_KINDS |= {"IP_ADDRESS": "IP", "CRYPTO": "WALLET", "MAC_ADDRESS": "MAC", "MEDICAL_LICENSE": "LICENSE"}
_LEFT_OUT = frozenset({"SpacyRecognizer", "UrlRecognizer", "DateRecognizer"})
_SURE = 0.4


class Presidio:
    """Finds what presidio's recognizers for English texts are at least 0.4 sure of. Raises `InvalidConfig`."""

    def __init__(self) -> None:
        try:
            import spacy
            import tldextract.tldextract
            from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
            from presidio_analyzer.nlp_engine import SpacyNlpEngine
        except ImportError as error:
            raise InvalidConfig(
                "data.personal_by: presidio is not installed", "pip install 'tuneloop[pii]', or use patterns"
            ) from error
        for name in ("presidio-analyzer", "tldextract"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # It would fetch the list of public suffixes from the network for every e-mail address; it brings one, too.
        tldextract.tldextract.TLD_EXTRACTOR.suffix_list_urls = ()
        registry = RecognizerRegistry(supported_languages=["en"])
        registry.load_predefined_recognizers(languages=["en"])
        registry.recognizers = [one for one in registry.recognizers if one.name not in _LEFT_OUT]
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
        engine.nlp = {"en": spacy.blank("en")}
        self._analyzer: Any = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def find(self, text: str) -> list[Span]:
        """Spans in order, none over another: the surest one, then the longest, has the place."""
        found: list[Span] = []
        results = self._analyzer.analyze(text, language="en", score_threshold=_SURE)
        for result in sorted(results, key=lambda r: (-r.score, r.start - r.end)):
            if all(result.end <= other.start or result.start >= other.end for other in found):
                kind = _KINDS.get(result.entity_type, "NATIONAL_ID" if result.entity_type[2:3] == "_" else "PERSONAL")
                found.append(Span(result.start, result.end, kind))
        return sorted(found)
