#!/bin/sh
# Puts a model where the Xcode project looks for it: the bundle and its MoRViTKit in examples/ios/Model, and the app's
# own copy of the model in examples/ios/MoRViTCamera/Model. The app is built with that one, of Core ML or of Core AI.
#
#   examples/ios/prepare.sh                             the trained digits example
#   examples/ios/prepare.sh CHECKPOINT [OPTION …]       another checkpoint; options go to `morvit-deploy export`,
#                                                       such as --plan plan.json or --target coreai
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
morvit-deploy export "$checkpoint" --target coreml --with-depth --force -o "$here/Model" "$@"

app=$here/MoRViTCamera/Model
rm -rf "$app"
mkdir "$app"
for model in "$here/Model/MoRViT.mlpackage" "$here/Model/MoRViT.aimodel"; do
    [ ! -e "$model" ] || cp -R "$model" "$app"
done
cp "$here/Model/MoRViT.json" "$app"
