import Foundation
import XCTest

@testable import MoRViTCore

/// `vectors.json`: inputs with the results of the Python package that exported the model.
struct Vectors: Decodable {
    struct Geometry: Decodable {
        let width: Int
        let height: Int
        let resizedWidth: Int
        let resizedHeight: Int
        let left: Int
        let top: Int
    }

    struct Normalized: Decodable {
        let width: Int
        let height: Int
        let pixels: [UInt8]
        let numbers: [Float]
    }

    struct Orientation: Decodable {
        let orientation: Int
        let stored: [[Int]]
        let upright: [[Int]]
    }

    struct Prepared: Decodable {
        let picture: Int
        let width: Int
        let height: Int
        let orientation: Int
        let preprocessing: Preprocessing
        let pixels: [UInt8]
    }

    struct Dispatch: Decodable {
        let counts: [Int]
        let bucket: Int
        let overflow: Bool
    }

    struct Guesses: Decodable {
        let activation: HeadActivation
        let logits: [Float]
        let indices: [Int]
        let probabilities: [Double]
        let present: [Int]
    }

    struct Color: Decodable {
        let depth: Int
        let lowest: Int
        let highest: Int
        let rgb: [Double]
    }

    let geometry: [Geometry]
    let normalized: Normalized
    let orientation: [Orientation]
    let pictures: [[UInt8]]
    let prepared: [Prepared]
    let dispatch: [Dispatch]
    let guesses: [Guesses]
    let colors: [Color]
    let goldenBuckets: [Int]

    /// The description of the exported model.
    static func model() throws -> ModelDescription { try ModelDescription(in: .module) }

    static func load() throws -> Vectors {
        let url = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        return try JSONDecoder().decode(Vectors.self, from: Data(contentsOf: url))
    }
}
