"""MoRViTKit: the Swift package beside a Core ML package."""
