import Foundation
import XCTest

@testable import MoRViTCore

/// `vectors.json`: questions with the answers of the Python package that exported the model.
struct Vectors: Decodable {
    struct Geometry: Decodable {
        let width: Int
        let height: Int
        let resizedWidth: Int
        let resizedHeight: Int
        let left: Int
        let top: Int
    }

    struct Normalised: Decodable {
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

    struct Dispatch: Decodable {
        let counts: [Int]
        let bucket: Int
        let overflow: Bool
    }

    struct Softmax: Decodable {
        let logits: [Float]
        let indices: [Int]
        let probabilities: [Double]
    }

    struct Colour: Decodable {
        let depth: Int
        let lowest: Int
        let highest: Int
        let rgb: [Double]
    }

    let geometry: [Geometry]
    let normalised: Normalised
    let orientation: [Orientation]
    let dispatch: [Dispatch]
    let softmax: [Softmax]
    let colours: [Colour]
    let goldenBuckets: [Int]

    static func load() throws -> Vectors {
        let url = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        return try JSONDecoder().decode(Vectors.self, from: Data(contentsOf: url))
    }
}
