import XCTest

@testable import MoRViTCore

final class ModelDescriptionTests: XCTestCase {
    func testTheDescriptionIsWhole() throws {
        let model = try Vectors.model()
        XCTAssertEqual(model.format, ModelDescription.format)
        XCTAssertEqual(model.patchesPerSide * model.patchSize, model.imageSize)
        XCTAssertEqual(model.functions.count, model.isAdaptive ? model.dispatch.buckets.count + 1 : 1)
        XCTAssertEqual(model.isAdaptive, !model.carried.isEmpty)
        XCTAssertEqual(model.preprocessing.mean.count, 3)
        XCTAssertEqual(model.preprocessing.std.count, 3)
    }

    func testGoldenBucketsAreInTheLadder() throws {
        let model = try Vectors.model()
        let buckets = try Vectors.load().goldenBuckets
        XCTAssertFalse(buckets.isEmpty)
        XCTAssertTrue(buckets.allSatisfy(model.dispatch.buckets.indices.contains))
    }

    func testEveryClassHasAName() throws {
        let model = try Vectors.model()
        XCTAssertEqual(model.label(of: 0), model.labels?.first ?? "0")
        XCTAssertEqual(model.label(of: model.classes), String(model.classes))
    }

    func testTwoModelsHaveTwoDescriptions() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let digits = try Vectors.model()
        let dogs = ModelDescription(
            imageSize: 32, patchSize: 8, classes: 2, labels: ["poodle", "beagle"],
            preprocessing: Preprocessing(
                imageSize: 32, resize: 36, interpolation: "bilinear", mean: [0, 0, 0], std: [1, 1, 1]
            ),
            dispatch: DispatchTable(
                mode: .topk, lead: 0, buckets: [.init(name: "full", capacity: [16], macs: 1)]
            ),
            steps: 1
        )
        for (name, model) in [("Digits", digits), ("Dogs", dogs)] {
            try JSONEncoder().encode(model).write(to: folder.appendingPathComponent("\(name).json"))
        }
        let read = try ["Digits", "Dogs"].map {
            try ModelDescription(contentsOf: folder.appendingPathComponent("\($0).json"))
        }
        XCTAssertEqual(read, [digits, dogs])
    }

    func testAMissingDescriptionIsNamed() {
        XCTAssertThrowsError(try ModelDescription(named: "Dogs", in: .module)) { error in
            XCTAssertTrue(error.localizedDescription.contains("Dogs.json"), error.localizedDescription)
            XCTAssertTrue((error as? MoRViTError)?.recoverySuggestion?.contains("MoRViT.json") ?? false)
        }
        let nowhere = URL(fileURLWithPath: "/nowhere/Dogs.json")
        XCTAssertThrowsError(try ModelDescription(contentsOf: nowhere)) { error in
            XCTAssertTrue(error.localizedDescription.contains(nowhere.path), error.localizedDescription)
        }
    }

    func testADescriptionWithoutHeadActivationIsRead() throws {
        let model = try Vectors.model()
        XCTAssertEqual(model.headActivation == nil, model.output != nil)  // an array has no activation
        var fields = try XCTUnwrap(JSONSerialization.jsonObject(with: bundledJSON()) as? [String: Any])
        fields["headActivation"] = nil
        let older = try ModelDescription(json: JSONSerialization.data(withJSONObject: fields))
        XCTAssertNil(older.headActivation)
        XCTAssertEqual(older.guesses(logits: [0, 0], count: 1).first?.probability, 0.5)
    }

    func testTheShapeOfAnArrayFitsTheOutput() throws {
        let json = { (output: String, shape: [Int]?) throws -> Data in
            var fields = try XCTUnwrap(JSONSerialization.jsonObject(with: self.bundledJSON()) as? [String: Any])
            fields["output"] = output
            fields["outputShape"] = shape
            return try JSONSerialization.data(withJSONObject: fields)
        }
        let patches = try Vectors.model().patchesPerSide * Vectors.model().patchesPerSide
        XCTAssertEqual(try ModelDescription(json: json("features", [24])).outputShape, [24])
        XCTAssertEqual(try ModelDescription(json: json("tokens", [patches, 24])).output, .tokens)
        XCTAssertNil(try ModelDescription(json: json("logits", nil)).outputShape)
        let wrong: [(String, [Int]?)] = [
            ("features", nil), ("features", [0]), ("features", [patches, 24]), ("tokens", [24]),
            ("tokens", [patches + 1, 24]), ("logits", [24]), ("embedding", [24]),
        ]
        for (output, shape) in wrong {
            XCTAssertThrowsError(try ModelDescription(json: json(output, shape)), "\(output) \(shape ?? [])")
        }
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
        return try encoder.encode(Vectors.model())
    }
}
