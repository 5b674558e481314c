import math

import pytest

from jxai.results_log import ResultsLog

SETTINGS = {"draws": 3, "rules": ("right", "σ")}


def keys(path, settings=SETTINGS):
    return list(ResultsLog(path, settings).records)


def test_records_come_back_as_they_were(tmp_path):
    path = tmp_path / "made" / "log.jsonl"
    log = ResultsLog(path, SETTINGS)
    assert not path.exists() and not log.done("a") and log.settings == {"draws": 3, "rules": ["right", "σ"]}
    first = log.append({"key": "a", "values": (0.1 + 0.2, 1e-320, math.inf)})
    log.append({"key": "b ü\u2028\n", "values": []})
    again = ResultsLog(path, SETTINGS)
    assert again.records == log.records and list(again.records) == ["a", "b ü\u2028\n"]
    assert again.records["a"] == first == {"key": "a", "values": [0.1 + 0.2, 1e-320, math.inf]}
    assert again.done("a") and not again.done("c")
    again.append({"key": "c"})
    assert keys(path) == ["a", "b ü\u2028\n", "c"]
    for record in ({"key": "a"}, {"key": 1}, {"values": 1}):
        with pytest.raises(ValueError, match="expected a record with a new string as its key, got"):
            again.append(record)


def test_a_torn_line_does_not_count_and_is_overwritten(tmp_path):
    path = tmp_path / "log.jsonl"
    for key in "abc":
        ResultsLog(path, SETTINGS).append({"key": key, "value": 1.5})
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        log = ResultsLog(path, SETTINGS)
        assert len(log.records) == max(0, sum(end <= length for end in ends) - 1)
        assert path.read_bytes() == whole[:length]  # opening alone changes nothing
        for key in "abc":
            if not log.done(key):
                log.append({"key": key, "value": 1.5})
        assert path.read_bytes() == whole


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    ResultsLog(path, SETTINGS).append({"key": "a"})
    expected = (
        r"expected the settings {'draws': 3} of .*log\.jsonl, got {'draws': 4}: give these settings again"
    )
    with pytest.raises(ValueError, match=expected):
        ResultsLog(path, {**SETTINGS, "draws": 4})
    with pytest.raises(
        ValueError, match=r"{'draws': 3, 'steps': None} of .*, got {'draws': None, 'steps': 1}"
    ):
        ResultsLog(path, {"rules": SETTINGS["rules"], "steps": 1})


@pytest.mark.parametrize("text", ["nothing\n", "[1]\n", '{"key": "a"}\n', '{"settings": {}}\n{"other": 1}\n'])
def test_what_is_no_log_is_named(tmp_path, text):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"expected a log of results, got line \d of .*log\.jsonl: remove"):
        ResultsLog(path, {})
    assert path.read_text() == text
