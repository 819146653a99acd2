#if canImport(CoreML)
import Foundation
import MoRViTKit
import XCTest

/// Images of the export and what its float64 reference returns for them: logits, features or tokens.
struct GoldenImages {
    private struct Facts: Decodable {
        let count: Int
        let height: Int
        let width: Int
        let classes: Int  // numbers of an image
        let buckets: [Int]
        let tolerance: Float
    }

    let pixels: [RGBPixels]
    let logits: [[Float]]
    let buckets: [Int]
    /// Absolute: what the model's precision leaves.
    let tolerance: Float

    init() throws {
        let facts = try JSONDecoder().decode(Facts.self, from: Self.resource("golden", "json"))
        let bytes = try [UInt8](Self.resource("golden-pixels", "bin"))
        let numbers = try Self.floats(Self.resource("golden-logits", "bin"))
        let each = 3 * facts.width * facts.height
        XCTAssertEqual(bytes.count, facts.count * each)
        XCTAssertEqual(numbers.count, facts.count * facts.classes)
        pixels = try (0..<facts.count).map {
            try RGBPixels(
                width: facts.width, height: facts.height, bytes: Array(bytes[$0 * each..<($0 + 1) * each])
            )
        }
        logits = (0..<facts.count).map { Array(numbers[$0 * facts.classes..<($0 + 1) * facts.classes]) }
        buckets = facts.buckets
        tolerance = facts.tolerance
    }

    private static func resource(_ name: String, _ ending: String) throws -> Data {
        try Data(contentsOf: XCTUnwrap(Bundle.module.url(forResource: name, withExtension: ending)))
    }

    private static func floats(_ data: Data) -> [Float] {
        stride(from: 0, to: data.count, by: 4).map { start in
            let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(data[start + $1]) << UInt32(8 * $1) }
            return Float(bitPattern: bits)
        }
    }
}
#endif
