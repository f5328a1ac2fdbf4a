"""The one builder of prompts: what every arm is asked, and what is refused rather than left out."""

import re
from types import SimpleNamespace

import pytest
from jinja2 import TemplateError

from reasonvec.errors import BenchmarkError, CheckpointError, UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.prompts import (
    THINK,
    build_messages,
    log_likelihood_prompt,
    pose,
    prompt_style,
    render,
)

NUMBER = BenchmarkProblem("t/1", "t", "What is 2 + 3?", "5", "number")
CHOICE = BenchmarkProblem(
    "sciq/test/1", "sciq", "What melts?", "ice", "choice",
    details={"distractors": ["rock", "fire", "air"], "support": " Ice melts at 0 °C. "},
)  # fmt: skip
PROGRAM = BenchmarkProblem("humaneval/1", "humaneval", "def f(x):\n    \"\"\"One more.\"\"\"\n", "    return x + 1\n",
                           "program", details={"entry_point": "f", "test": ""})  # fmt: skip


class Template:
    """A tokenizer whose template writes role and content."""

    name_or_path = "some/model"
    chat_template = "x"

    def apply_chat_template(self, messages, **settings):
        assert settings == {"add_generation_prompt": True, "tokenize": False}
        if any(message["role"] == "system" for message in messages) and self.chat_template == "no system":
            raise TemplateError("System role not supported")
        return "".join(f"[{message['role']}]{message['content']}" for message in messages)


def contents(problem, style, **more):
    return [(message["role"], message["content"]) for message in build_messages(problem, style, **more)]


def test_think_goes_before_the_question_and_nothing_else_changes():
    (role, plain), *rest = contents(NUMBER, prompt_style("plain"))
    assert (role, rest) == ("user", [])
    assert contents(NUMBER, prompt_style("think")) == [("user", f"{THINK} {plain}")]
    assert contents(NUMBER, prompt_style("Be brief.")) == [("user", f"Be brief. {plain}")]


def test_no_system_message_is_given_so_that_the_templates_own_stays():
    assert {role for style in ("plain", "think") for role, _ in contents(NUMBER, prompt_style(style))} == {"user"}


def test_in_the_system_message_both_arms_have_one_and_differ_in_the_instruction_alone():
    plain = contents(NUMBER, prompt_style("plain", placement="system"))
    think = contents(NUMBER, prompt_style("think", placement="system"))
    assert [role for role, _ in plain] == [role for role, _ in think] == ["system", "user"]
    assert think[0][1] == f"{plain[0][1]} {THINK}"
    assert think[1] == plain[1]


def test_bare_is_the_text_of_the_problem_alone():
    style = prompt_style("plain", bare=True)
    assert render(build_messages(NUMBER, style), style, None) == NUMBER.question
    assert render(build_messages(PROGRAM, style), style, None) == PROGRAM.question
    think = prompt_style("think", bare=True)
    assert render(build_messages(NUMBER, think), think, None) == f"{THINK} {NUMBER.question}"


def test_bare_has_no_system_message():
    with pytest.raises(UsageError, match="--bare gives the problem's text alone"):
        prompt_style("plain", bare=True, placement="system")


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_prompt_is_refused(empty):
    with pytest.raises(UsageError, match="--prompt is empty"):
        prompt_style(empty)


def test_worked_examples_come_first_and_in_their_own_form():
    problem = BenchmarkProblem("bbh/navigate/0", "bbh/navigate", "Do you return?", "No", "text")
    ((_, text),) = contents(problem, prompt_style("plain"), examples="Navigate.\n\nQ: A?\nA: So the answer is Yes.\n")
    assert text == "Navigate.\n\nQ: A?\nA: So the answer is Yes.\n\nQ: Do you return?\nA: Let's think step by step.\n"


def test_the_harness_words_for_log_likelihood():
    assert log_likelihood_prompt(pose(CHOICE, variant=None, seed=0)) == (
        "Ice melts at 0 °C.\nQuestion: What melts?\nAnswer:"
    )
    assert log_likelihood_prompt(pose(CHOICE, variant="closed-book", seed=0)) == "Question: What melts?\nAnswer:"
    assert pose(CHOICE, variant=None, seed=7).details["options"] == ["rock", "fire", "air", "ice"]


def test_written_options_are_shuffled_by_seed_and_id_and_hide_the_support_in_a_closed_book():
    options = {tuple(pose(CHOICE, variant="written", seed=seed).details["options"]) for seed in range(20)}
    assert len(options) > 5
    assert all(sorted(each) == ["air", "fire", "ice", "rock"] for each in options)
    again = pose(CHOICE, variant="written", seed=3)
    assert again.details["options"] == pose(CHOICE, variant="written-closed-book", seed=3).details["options"]
    ((_, opened),) = contents(again, prompt_style("plain"))
    ((_, closed),) = contents(pose(CHOICE, variant="written-closed-book", seed=3), prompt_style("plain"))
    assert opened == f"Ice melts at 0 °C.\n\n{closed}"
    for letter, option in zip("ABCD", again.details["options"], strict=True):
        assert f"\n{letter}. {option}" in closed


def test_the_right_answers_letter_is_spread_evenly():
    places = [
        pose(BenchmarkProblem(f"s/{n}", "s", "Q", "x", "choice", details={"distractors": ["a", "b", "c"]}),
             variant="written", seed=0).details["options"].index("x")
        for n in range(2000)
    ]  # fmt: skip
    assert all(430 < places.count(place) < 570 for place in range(4))


@pytest.mark.parametrize(
    "details", [{}, {"distractors": []}, {"distractors": "rock"}, {"distractors": [1]}, {"distractors": ["a", " "]}]
)
def test_a_choice_without_options_is_refused(details):
    with pytest.raises(BenchmarkError, match="t/2 is a choice, and its details hold no `distractors`"):
        pose(BenchmarkProblem("t/2", "t", "Q", "x", "choice", details=details), variant="written", seed=0)


def test_a_program_is_asked_for_as_a_whole():
    ((_, text),) = contents(PROGRAM, prompt_style("plain"))
    assert "```python\ndef f(x):" in text
    assert "boxed" not in text


def test_a_missing_template_is_refused_with_the_way_out():
    tokenizer = SimpleNamespace(name_or_path="some/base", chat_template=None)
    style = prompt_style("plain")
    with pytest.raises(CheckpointError, match=re.escape("some/base has no chat template")) as error:
        render(build_messages(NUMBER, style), style, tokenizer)
    assert "--bare" in str(error.value)


def test_a_template_that_refuses_the_system_message_is_told_and_not_worked_around():
    tokenizer = Template()
    tokenizer.chat_template = "no system"
    style = prompt_style("think", placement="system")
    with pytest.raises(CheckpointError, match="does not take messages of system and user: System role not supported"):
        render(build_messages(NUMBER, style), style, tokenizer)
    style = prompt_style("think")
    assert render(build_messages(NUMBER, style), style, tokenizer).startswith(f"[user]{THINK}")


@pytest.fixture(scope="module")
def tokenizer():
    from reasonvec.lab.world import world_tokenizer

    return world_tokenizer()


def rendered(tokenizer, template, *, prompt="plain", placement="user"):
    tokenizer.chat_template = template
    style = prompt_style(prompt, placement=placement)
    return render(build_messages(NUMBER, style), style, tokenizer)


USERS = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"


def test_a_template_that_drops_the_system_message_in_silence_is_refused(tokenizer):
    assert rendered(tokenizer, USERS).startswith(NUMBER.question)
    with pytest.raises(CheckpointError, match="leaves out, or changes, the message of the system.*--placement user"):
        rendered(tokenizer, USERS, placement="system")


def test_a_template_that_drops_the_question_is_refused(tokenizer):
    with pytest.raises(CheckpointError, match="leaves out, or changes, the message of the user.*--bare"):
        rendered(tokenizer, "<|user|> hello <|assistant|>")


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (USERS + "{{ strftime_now('%d %b %Y, %A %H:%M:%S.%f') }}", "26 Jul 2024, Friday 00:00:00.000000"),
        ("\n" + USERS + "{%- set d = strftime_now('%Y-%m-%d') %}{{ d }}", "2024-07-26"),
        ("{% macro day() %}{{ strftime_now('%-d') }}{% endmacro %}" + USERS + "{{ day() }}", "26"),
        (USERS + "{% if strftime_now is defined %}{{ strftime_now('%B') }}{% endif %}", "July"),
    ],
)
def test_a_template_that_writes_the_date_writes_the_same_one_every_day(tokenizer, template, ends):
    text = rendered(tokenizer, template)
    assert text.endswith(ends)
    tokenizer.chat_template = template
    message = [{"role": "user", "content": build_messages(NUMBER, prompt_style("plain"))[0]["content"]}]
    own = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert own.startswith(text.removesuffix(ends))  # nothing but the date is another


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{{ 'a' * 10**12 }}", "{% if %}", "{{ 1 / 0 }}"])
def test_a_hostile_template_is_one_message(tokenizer, template):
    with pytest.raises(CheckpointError, match="does not take messages of user: .*Mend the template"):
        rendered(tokenizer, template)


def test_a_template_that_floods_the_prompt_is_refused(tokenizer):
    with pytest.raises(CheckpointError, match=r"makes 200,\d{3} characters of a question of \d\d\."):
        rendered(tokenizer, USERS + "{{ 'a' * 200000 }}")


def test_an_instruction_that_is_no_text_is_refused():
    with pytest.raises(UsageError, match="it holds bytes that are no UTF-8"):
        prompt_style("Think \udcff")
