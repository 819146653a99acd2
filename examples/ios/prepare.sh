#!/bin/sh
# Puts the model where the Xcode project looks for it: examples/ios/Model.
#
#   examples/ios/prepare.sh                             the trained digits example
#   examples/ios/prepare.sh CHECKPOINT [OPTION …]       another checkpoint; options go to `morvit-deploy export`,
#                                                       such as --plan plan.json or --precision fp32
set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
    checkpoint=$1
    shift
else
    checkpoint=$here/../digits-expert
fi

command -v morvit-deploy >/dev/null || {
    echo "prepare.sh: morvit-deploy is not on PATH; activate the environment that it is installed in" >&2
    exit 2
}
exec morvit-deploy export "$checkpoint" --target coreml --with-depth --force -o "$here/Model" "$@"
