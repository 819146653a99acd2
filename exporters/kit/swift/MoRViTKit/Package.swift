// swift-tools-version: 5.9

import PackageDescription

let package = Package(
    name: "MoRViTKit",
    platforms: [.iOS("17.0"), .macOS("14.0")],  // the oldest systems that load this model
    products: [
        .library(name: "MoRViTKit", targets: ["MoRViTKit"]),
        .library(name: "MoRViTCore", targets: ["MoRViTCore"]),
    ],
    targets: [
        // Arithmetic and the model's description: Foundation only, builds and tests on Linux too.
        .target(name: "MoRViTCore"),
        // The classifier and its images: Core ML, Core AI where the SDK has it, Core Image, Image I/O and vImage.
        .target(name: "MoRViTKit", dependencies: ["MoRViTCore"]),
        .testTarget(
            name: "MoRViTCoreTests", dependencies: ["MoRViTCore"], resources: [.process("Resources")]
        ),
        .testTarget(
            name: "MoRViTKitTests", dependencies: ["MoRViTKit"], resources: [.process("Resources")]
        ),
    ]
)
