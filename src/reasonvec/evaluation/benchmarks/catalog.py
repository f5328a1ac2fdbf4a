"""The benchmarks known by name: their files, each pinned by its SHA-256, where to get them and under which licence.

None of them is shipped. The directory given with --data holds them as docs/evaluation.md shows.
"""

from dataclasses import dataclass

from reasonvec.evaluation.benchmarks import bbh, records


@dataclass(frozen=True)
class Origin:
    """Where a benchmark comes from and what one may do with it."""

    title: str
    """Its name and paper."""
    licence: str
    """Of the problems themselves, in words."""
    repository: str
    """Address of the repository, or of the page, that the file is in."""
    commit: str | None = None
    """The commit of a repository on GitHub."""


@dataclass(frozen=True)
class PinnedFile:
    """One file under the data directory."""

    path: str
    """Relative to the data directory."""
    sha256: str
    upstream: str
    """Relative to the origin's repository."""


@dataclass(frozen=True)
class Task:
    """One set of problems in one file."""

    name: str
    file: PinnedFile
    problems: int
    """How many it holds."""
    origin: Origin
    read: records.Reader
    prompt: PinnedFile | None = None
    """Its own chain-of-thought prompt."""
    perturbable: bool = True
    """Whether its questions are prose whose meaning survives a change of wording."""


_GSM8K = Origin(
    "GSM8K (Cobbe et al. 2021, arXiv:2110.14168)", "MIT",
    "https://github.com/openai/grade-school-math", "3101c7d5072418e28b9008a6636bde82a006892c",
)  # fmt: skip
_HUMANEVAL = Origin(
    "HumanEval (Chen et al. 2021, arXiv:2107.03374)", "MIT",
    "https://github.com/openai/human-eval", "6d43fb980f9fee3c892a914eda09951f772ad10d",
)  # fmt: skip
_SCIQ = Origin(
    "SciQ (Welbl, Liu and Gardner 2017, arXiv:1707.06209)", "CC BY-NC 3.0: not for commercial use",
    "https://allenai.org/data/sciq (SciQ.zip)",
)  # fmt: skip
_BBH = Origin(
    "BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261)", "MIT",
    "https://github.com/suzgunmirac/BIG-Bench-Hard", "9ee07bd481feebf959a6b59d61ea57bdcf30964d",
)  # fmt: skip


def _suite(title: str, licence: str) -> Origin:
    return Origin(
        title, licence, "https://github.com/hkust-nlp/simpleRL-reason", "cf1c7858bfc145a27aa733e75d930d34f0d318a6"
    )


def _suite_file(path: str, sha256: str) -> PinnedFile:
    return PinnedFile(f"math-suite/{path}", sha256, f"examples/simplelr_math_eval/data/{path}")


_SINGLE = (
    Task("gsm8k", PinnedFile("gsm8k/test.jsonl", "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
                             "grade_school_math/data/test.jsonl"), 1319, _GSM8K, records.gsm8k),
    Task("gsm8k/train", PinnedFile("gsm8k/train.jsonl",
                                   "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
                                   "grade_school_math/data/train.jsonl"), 7473, _GSM8K, records.gsm8k),
    Task("humaneval", PinnedFile("humaneval/HumanEval.jsonl.gz",
                                 "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
                                 "data/HumanEval.jsonl.gz"), 164, _HUMANEVAL, records.humaneval, perturbable=False),
    Task("sciq", PinnedFile("sciq/test.json", "7340983c427dc2ffd3dccf1adb758b6cdc9455bd22bf3db0ddf6ffcae0452006",
                            "SciQ dataset/test.json"), 1000, _SCIQ, records.sciq),
    Task("sciq/valid", PinnedFile("sciq/valid.json", "b201bc1c002b31cabc8581d05f8a5ce9d115b9ad4f7b4a428c00c3935d67a6ec",
                                  "SciQ dataset/valid.json"), 1000, _SCIQ, records.sciq),
    Task("math500", _suite_file("math500/test.jsonl",
                                "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"), 500,
         _suite("MATH-500 (Hendrycks et al. 2021, arXiv:2103.03874)", "MIT"), records.math500),
    Task("aime24", _suite_file("aime24/test.jsonl", "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac"),
         30, _suite("AIME 2024", "copyright of the Mathematical Association of America"), records.contest),
    Task("amc23", _suite_file("amc23/test.jsonl", "43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4"),
         40, _suite("AMC 2023", "copyright of the Mathematical Association of America"), records.contest),
    Task("minerva", _suite_file("minerva_math/test.jsonl",
                                "0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2"), 272,
         _suite("Minerva Math (Lewkowycz et al. 2022, arXiv:2206.14858)",
                "MIT OpenCourseWare's, CC BY-NC-SA: not for commercial use"), records.minerva),
    Task("olympiadbench", _suite_file("olympiadbench/test.jsonl",
                                      "bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416"), 675,
         _suite("OlympiadBench (He et al. 2024, arXiv:2402.14008)", "Apache-2.0"), records.olympiadbench),
    Task("svamp", _suite_file("svamp/test.jsonl", "d0826ff1264f3860e46fc4e71db9e31d2d188960db87090e22677f9493e67a0d"),
         1000, _suite("SVAMP (Patel et al. 2021, arXiv:2103.07191)", "MIT"), records.svamp),
    Task("asdiv", _suite_file("asdiv/test.jsonl", "5759580385e706f961a30d4c07d6925b35c3f7c86d6c50bc413957169693dad2"),
         2215, _suite("ASDiv (Miao et al. 2020, arXiv:2106.15772)", "CC BY-NC 4.0: not for commercial use"),
         records.asdiv),
    Task("multiarith", _suite_file("mawps/multiarith.jsonl",
                                   "12e8295088364af21fb6591dbdbd1dda452aade57227f63d725677471ded2951"), 600,
         _suite("MultiArith (Roy and Roth 2015, in MAWPS)", "not stated"), records.multiarith),
)  # fmt: skip

TASKS: dict[str, Task] = {task.name: task for task in _SINGLE} | {
    f"bbh/{name}": Task(
        f"bbh/{name}",
        PinnedFile(f"bbh/bbh/{name}.json", sha256, f"bbh/{name}.json"),
        problems,
        _BBH,
        records.bbh,
        PinnedFile(f"bbh/cot-prompts/{name}.txt", bbh.PROMPTS[name], f"cot-prompts/{name}.txt"),
        perturbable=False,
    )
    for name, (problems, sha256) in bbh.TASKS.items()
}
"""Every task by name; `bbh` stands for all 27 of its tasks."""

GROUPS: dict[str, tuple[str, ...]] = {"bbh": tuple(name for name in TASKS if name.startswith("bbh/"))}
"""Names that stand for several tasks."""
