"""Target `coreai`: one `.aimodel` for Apple's Core AI, run by Apple's own runtime on macOS and Linux.

Functions: `main` for a plan of one bucket; otherwise `stem`, which every image runs first, and one function for each
bucket under the bucket's name. Names of values are those of the Core ML package, with underscores for dots.

- `main` and `stem` take `image`; a bucket takes the carried values, which are the manifest's `carried`.
- `stem` returns `bucket` int32 (1,) and the carried values.
- `main` and a bucket return `logits` float32 (1, classes), and `overflow` int32 (1,) and `depth` int32 (1, patches)
  where the manifest lists them. A stem that knows all depths returns `depth` itself.

`image` is uint8 (1, height, width, 3), RGB pixels, whose normalization is inside; with `--input float` it is the
normalized float32 (1, 3, height, width). Carried floats are float32, or float16 in a bundle of that precision.
"""
