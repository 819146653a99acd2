import XCTest

@testable import MoRViTCore

final class ModelDescriptionTests: XCTestCase {
    func testTheBundledDescriptionIsWhole() throws {
        let model = try ModelDescription.bundled()
        XCTAssertEqual(model.format, ModelDescription.format)
        XCTAssertEqual(model.patchesPerSide * model.patchSize, model.imageSize)
        XCTAssertEqual(model.functions.count, model.isAdaptive ? model.dispatch.buckets.count + 1 : 1)
        XCTAssertEqual(model.isAdaptive, !model.carried.isEmpty)
        XCTAssertEqual(model.preprocessing.mean.count, 3)
        XCTAssertEqual(model.preprocessing.std.count, 3)
    }

    func testGoldenBucketsAreInTheLadder() throws {
        let model = try ModelDescription.bundled()
        let buckets = try Vectors.load().goldenBuckets
        XCTAssertFalse(buckets.isEmpty)
        XCTAssertTrue(buckets.allSatisfy(model.dispatch.buckets.indices.contains))
    }

    func testEveryClassHasAName() throws {
        let model = try ModelDescription.bundled()
        XCTAssertEqual(model.label(of: 0), model.labels?.first ?? "0")
        XCTAssertEqual(model.label(of: model.classes), String(model.classes))
    }

    func testAnotherFormatIsRefused() throws {
        let text = try String(decoding: bundledJSON(), as: UTF8.self)
        let other = text.replacingOccurrences(of: ModelDescription.format, with: "morvit-kit/0")
        XCTAssertThrowsError(try ModelDescription(json: Data(other.utf8))) { error in
            guard case MoRViTError.unreadableDescription(let reason)? = error as? MoRViTError else {
                return XCTFail("got \(error)")
            }
            XCTAssertTrue(reason.contains("morvit-kit/0"), reason)
        }
    }

    func testWhatIsNoDescriptionIsRefused() {
        XCTAssertThrowsError(try ModelDescription(json: Data("{}".utf8))) { error in
            XCTAssertNotNil((error as? MoRViTError)?.recoverySuggestion)
        }
    }

    private func bundledJSON() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        return try encoder.encode(ModelDescription.bundled())
    }
}
