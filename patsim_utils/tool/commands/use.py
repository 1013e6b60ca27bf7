"""The commands that use a model: ask, models, score, search, serve."""

import argparse
import importlib.util
import os
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from patsim_utils.errors import InputError, named
from patsim_utils.tool import models, outputs, parts, work
from patsim_utils.tool.commands import checks

SEARCH_FORMS = (".json", *outputs.FORMS)
SERVE_NEEDS = ("fastapi", "uvicorn", "prometheus_client")


def run_ask(words: argparse.Namespace) -> None:
    """`patsim ask`."""
    folder = checks.model_folder(words)
    clock = work.Clock()
    from patsim_utils.method.matcher import Matcher
    from patsim_utils.tool.commands import answers

    work.use_threads(words.threads, clock)
    checks.say_other_letters(words.anchor, words.target)
    matcher = Matcher.load(folder)
    checks.say_strange_words(matcher.tokenizer.get_vocab(), words.anchor, words.target)
    print(answers.ask(matcher, words.anchor, words.target, context=words.context))


def run_models(words: argparse.Namespace) -> None:
    """`patsim models`."""
    print(models.listing())


def run_score(words: argparse.Namespace) -> int:
    """`patsim score`; 2 also where rows or tables had something wrong and the others were scored."""
    checks.check_engine(words)
    folder = checks.model_folder(words)
    source = words.pairs
    target = outputs.destination(words.output)
    checks.check_readable(source)
    if source.is_dir():
        outputs.check_folder(target, source, overwrite=words.overwrite)
    else:
        if target is not None and os.path.isdir(target):
            target = target / source.name
        outputs.check_output(target, overwrite=words.overwrite or bool(parts.written_before(target)))
    if words.status is not None:
        work.check_status(words.status)
    clock = work.Clock()
    from patsim_utils.tool import scoring

    options = scoring.Options(
        names=scoring.Columns(words.anchor_column, words.target_column, words.context_column, words.context),
        unknown=words.unknown,
        explain=words.explain,
        skip_errors=words.on_error == "skip",
        columns=words.columns,
        spreadsheet_safe=words.spreadsheet_safe,
        overwrite=words.overwrite,
        workers=words.workers if words.engine == "ray" else 0,
        status=words.status,
    )
    prepare = None
    if words.engine != "ray":
        prepare = partial(work.use_threads, words.threads, clock, engine=words.engine)
    model = models.Model(folder, engine=words.engine, prepare=prepare)
    score = scoring.score_folder if source.is_dir() else scoring.score_table
    return 2 if score(source, target, model, options) else 0


def run_search(words: argparse.Namespace) -> None:
    """`patsim search`: the phrases of a corpus that mean the same as a query, or as each of many."""
    checks.check_engine(words)
    _check_query(words)
    folder = checks.model_folder(words)
    output = outputs.destination(words.output)
    outputs.check_output(output, overwrite=words.overwrite, forms=SEARCH_FORMS)
    if words.corpus != "sample":
        checks.check_readable(Path(words.corpus))
    clock = work.Clock()
    from patsim_utils.search.corpus import read_queries
    from patsim_utils.search.search import Search, check_count
    from patsim_utils.tool import scale

    check_count(words.top, where="--top")
    check_count(words.candidates, where="--candidates")
    queries = None if words.queries is None else read_queries(words.queries)
    asked = [words.query] if queries is None else queries["query"]
    checks.say_other_letters(*asked)
    note = work.use_threads(words.threads, clock)
    progress = work.Progress(0, unit="phrases of the index", note=note)
    encode = scale.encoder(words.workers) if words.engine == "ray" else None
    try:
        options = {"retriever": words.retriever, "encode": encode, "progress": progress.reach}
        search = Search.open(folder, words.corpus, **options)
    finally:
        progress.close()
    checks.say_strange_words(search.matcher.tokenizer.get_vocab(), *asked)
    options = {"top": words.top, "candidates": words.candidates, "only_class": words.only_class}
    find = partial(search, words.query, words.context)
    if queries is not None:
        find = partial(search.table, queries)
    answer = find(**options)
    if answer.empty:
        print("no phrase of such a class is in this corpus", file=sys.stderr)
    # another command may have written it meanwhile
    outputs.check_output(output, overwrite=words.overwrite, forms=SEARCH_FORMS)
    outputs.write_table(answer, output, spreadsheet_safe=words.spreadsheet_safe)


def _check_query(words: argparse.Namespace) -> None:
    """InputError where the words of a search name no query, or two kinds of them."""
    if words.query is None and words.queries is None:
        raise InputError("query: is missing; name a phrase, or a table with --queries")
    if words.query is not None and words.queries is not None:
        raise InputError("--queries: a query is given, too; name one of both")
    if words.query is not None and words.context is None:
        raise InputError("--context: is missing; name a CPC class, such as H04")
    if words.queries is not None and words.context is not None:
        raise InputError("--context: is not for --queries, whose table has a column context")
    if words.queries is not None:
        checks.check_readable(words.queries)


def run_serve(words: argparse.Namespace) -> None:
    """`patsim serve`, until Ctrl-C; clients have to send the token PATSIM_TOKEN, if it is set."""
    missing = [package for package in SERVE_NEEDS if not importlib.util.find_spec(package)]
    if missing:
        raise InputError(f"serve: {missing[0]} is not installed; pip install -e '.[serve]'")
    folder = checks.model_folder(words)
    if words.corpus not in (None, "sample"):
        checks.check_readable(Path(words.corpus))
    with _listening(words.host, words.port) as listener:
        _serve(words, folder, listener)


def _serve(words: argparse.Namespace, folder: Path, listener: socket.socket) -> None:
    clock = work.Clock()
    import uvicorn

    from patsim_utils.method.matcher import Matcher
    from patsim_utils.search.search import Search
    from patsim_utils.tool.web import serve

    note = work.use_threads(words.threads, clock)
    search = None if words.corpus is None else Search.open(folder, words.corpus)
    matcher = Matcher.load(folder) if search is None else search.matcher
    application = serve.application(matcher, search=search, token=os.environ.get("PATSIM_TOKEN", ""))
    print(f"http://{words.host}:{words.port}/docs, {note}; Ctrl-C ends it", file=sys.stderr, flush=True)
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
    with suppress(KeyboardInterrupt):  # its end
        server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that nobody else takes the port while the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while ")[0]  # which is followed by the address
        raise InputError(f"{named(host)}:{port}: nothing can listen there ({reason})") from error
