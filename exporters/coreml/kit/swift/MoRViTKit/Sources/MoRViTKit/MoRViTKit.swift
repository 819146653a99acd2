// Who imports MoRViTKit has the types of its answers, too.
@_exported import MoRViTCore
