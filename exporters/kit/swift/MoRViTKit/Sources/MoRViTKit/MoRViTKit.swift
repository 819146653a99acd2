// `import MoRViTKit` is enough: predictions, descriptions and errors come with it.
@_exported import MoRViTCore
