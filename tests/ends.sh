#!/usr/bin/env bash
# make ends: the quick tests at the ends of the ranges of pyproject.toml, the oldest of all on the
# oldest Python and the newest on each later one. A Python that is not here is named and left out;
# an end that fails does not keep the others from being run.
set -uo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH  # another checkout's tests would be found
ends=${*:-3.11 3.13 3.12}
extras=prep,dev,eval,report,ui,cloud

python_of() {  # pyenv puts a name on the path for versions that it does not start
    for python in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null
        then echo "$python"; return; fi
    done
    return 1
}

oldest() {  # the oldest version of each requirement of the base and of some extras
    "$1/bin/python" tests/floors.py "$2" > "$1.txt" && $uv --python "$1/bin/python" -r "$1.txt"
}

quick() {
    "$1/bin/pip" check && "$1/bin/avb" models fetch && OMP_NUM_THREADS=1 \
        "$1/bin/python" -m pytest -n auto --maxprocesses 4 -m 'not slow and not gpu'
}

end() {
    local python room=build/ends/$1
    python=$(python_of "$1") || { said="no Python $1 here"; return 0; }
    said="Python $1 passed"
    "$python" -m venv --clear "$room" || return  # what an earlier run left is neither end
    if [ "$1" = 3.11 ]; then
        # torch of the extra export is newer than the oldest of the base: tested after the rest.
        oldest "$room" $extras && $uv --python "$room/bin/python" --no-deps -e . && quick "$room" &&
            oldest "$room" export &&
            "$room/bin/python" -m pytest tests/tools/test_export.py -m 'not slow'
    else
        $uv --python "$room/bin/python" --upgrade -e ".[$extras,export]" && quick "$room"
    fi
}

# pip takes minutes to find versions that go together.
"$(python_of 3.11)" -m venv build/ends/uv && build/ends/uv/bin/pip install --quiet uv || exit
uv="build/ends/uv/bin/uv pip install --quiet"
failed=0
for one in $ends; do
    end "$one" || { failed=1; said="Python $one FAILED"; }
    summary+="$said"$'\n'
done
printf '%s' "$summary"
exit $failed
