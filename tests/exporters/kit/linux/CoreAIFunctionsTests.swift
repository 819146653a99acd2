import CoreAI
import Foundation
import XCTest

@testable import MoRViTCore
@testable import MoRViTKit

/// The Core AI engine over a model of constants.
final class CoreAIFunctionsTests: XCTestCase {
    private actor Classifier {
        private let model: any PixelClassifying

        init(_ asset: URL, _ description: ModelDescription) async throws {
            let functions = try await CoreAIFunctions(
                contentsOf: asset, description: description, computeUnits: .cpuOnly
            )
            model = Dispatcher(description: description, functions: functions)
        }

        func load(_ name: String) throws { try model.load(name) }

        func predict(_ pixels: RGBPixels) async throws -> Prediction {
            try await model.predict(pixels, since: Stopwatch(), on: self)
        }

        func embed(_ pixels: RGBPixels) async throws -> Embedding {
            try await model.embed(pixels, since: Stopwatch(), on: self)
        }
    }

    private func description(
        _ input: ModelDescription.Input = .image, depth: Bool = true, output: ModelDescription.Output? = nil,
        shape: [Int]? = nil
    ) -> ModelDescription {
        let buckets = ["b0", "full"].map { DispatchTable.Bucket(name: $0, capacity: [4, 4], macs: 1) }
        return ModelDescription(
            input: input, imageSize: 4, patchSize: 2, classes: 3,
            preprocessing: Preprocessing(
                imageSize: 4, resize: nil, interpolation: "bilinear", mean: [0, 0, 0], std: [1, 1, 1]
            ),
            dispatch: DispatchTable(mode: .threshold, lead: 0, buckets: buckets),
            functions: ["stem", "b0", "full"], carried: ["state", "unread"], steps: 2, answersDepth: depth,
            runtime: .coreAI, output: output, outputShape: shape
        )
    }

    /// A model whose b0 returns `overflow`, and whose functions differ by `changes`.
    private func asset(
        image: [Int] = [1, 4, 4, 3], bucket: Int = 0, overflow: Int = 0, output: String = "logits",
        changes: [String: Any] = [:]
    ) throws -> URL {
        func numbers(_ shape: [Int], _ values: [Double], _ type: String = "int32") -> [String: Any] {
            ["shape": shape, "scalarType": type, "values": values]
        }
        let padded: [String: Any] = [  // every second number
            "shape": [1, 3], "strides": [6, 2], "scalarType": "float32", "values": [1, 9, -2.5, 9, 3, 9],
        ]
        let state = ["state": [1, 4]]
        let functions: [String: Any] = [
            "stem": [
                "inputs": ["image": image],
                "outputs": [
                    "bucket": numbers([1], [Double(bucket)]),
                    "state": numbers([1, 4], [0, 0, 0, 0], "float16"), "unread": numbers([1], [0]),
                ],
            ],
            "b0": [
                "inputs": state,
                "outputs": [
                    output: padded, "overflow": numbers([1], [Double(overflow)]),
                    "depth": numbers([1, 4], [0, 1, 2, 1]),
                ],
            ],
            "full": [
                "inputs": state,
                "outputs": [
                    output: numbers([1, 3], [4, 5, 6], "float32"), "depth": numbers([1, 4], [2, 2, 2, 2]),
                ],
            ],
        ]
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).aimodel")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
        let data = try JSONSerialization.data(withJSONObject: functions.merging(changes) { $1 })
        try data.write(to: folder.appendingPathComponent("functions.json"))
        return folder
    }

    private let pixels = try! RGBPixels(width: 4, height: 4, bytes: [UInt8](0..<48))

    func testTheStemChoosesTheBucket() async throws {
        let prediction = try await Classifier(asset(), description()).predict(pixels)
        XCTAssertEqual(prediction.logits, [1, -2.5, 3])
        XCTAssertEqual(prediction.bucket.name, "b0")
        XCTAssertFalse(prediction.didOverflow)
        XCTAssertEqual(prediction.depth?.depths, [0, 1, 2, 1])
    }

    func testAnOverflowRunsTheLastBucket() async throws {
        let prediction = try await Classifier(asset(overflow: 1), description()).predict(pixels)
        XCTAssertEqual(prediction.logits, [4, 5, 6])
        XCTAssertEqual(prediction.bucketIndex, 1)
        XCTAssertTrue(prediction.didOverflow)
    }

    func testNormalizedNumbersAreChannelsFirst() async throws {
        let model = try asset(image: [1, 3, 4, 4], bucket: 1)
        let prediction = try await Classifier(model, description(.normalized)).predict(pixels)
        XCTAssertEqual(prediction.logits, [4, 5, 6])
        XCTAssertFalse(prediction.didOverflow)
    }

    func testFeaturesAreOneVector() async throws {
        let features = description(output: .features, shape: [3])
        let embedding = try await Classifier(asset(output: "features"), features).embed(pixels)
        XCTAssertEqual(embedding.values, [1, -2.5, 3])
        XCTAssertEqual(embedding.shape, [3])
        XCTAssertEqual(embedding.bucket.name, "b0")
        XCTAssertEqual(embedding.depth?.depths, [0, 1, 2, 1])
        let overflowing = try await Classifier(asset(overflow: 1, output: "features"), features).embed(pixels)
        XCTAssertEqual(overflowing.values, [4, 5, 6])
        XCTAssertTrue(overflowing.didOverflow)
        XCTAssertEqual(overflowing.bucketIndex, 1)
    }

    func testTokensAreRowsOfPatches() async throws {
        let padded: [String: Any] = [  // rows of four numbers, of which two count
            "shape": [1, 4, 2], "strides": [16, 4, 1], "scalarType": "float32",
            "values": [0, 1, 9, 9, 2, 3, 9, 9, 4, 5, 9, 9, 6, 7, 9, 9],
        ]
        let bucket = ["inputs": ["state": [1, 4]], "outputs": ["tokens": padded]] as [String: Any]
        let tokens = description(depth: false, output: .tokens, shape: [4, 2])
        let embedding = try await Classifier(asset(changes: ["b0": bucket]), tokens).embed(pixels)
        XCTAssertEqual(embedding.shape, [4, 2])
        XCTAssertEqual(embedding.values, [0, 1, 2, 3, 4, 5, 6, 7])
        XCTAssertEqual(embedding.vectors.map { Array($0) }, [[0, 1], [2, 3], [4, 5], [6, 7]])
        XCTAssertNil(embedding.depth)
    }

    func testWhatTheModelDoesNotReturnIsRefused() async throws {
        let features = description(output: .features, shape: [3])
        let model = try await Classifier(asset(output: "features"), features)
        await assertThrows(.otherOutput(.features)) { _ = try await model.predict(self.pixels) }
        let ofClasses = try await Classifier(asset(), description())
        await assertThrows(.otherOutput(.logits)) { _ = try await ofClasses.embed(self.pixels) }
        let long = try await Classifier(asset(output: "features"), description(output: .features, shape: [2]))
        let reason = "got 3 numbers, expected shape [2]"
        await assertThrows(.unexpectedOutput(reason: reason)) { _ = try await long.embed(self.pixels) }
    }

    private func assertThrows(_ expected: MoRViTError, _ run: () async throws -> Void) async {
        do {
            try await run()
            XCTFail("expected \(expected)")
        } catch {
            XCTAssertEqual(error as? MoRViTError, expected)
        }
    }

    func testAnImpossibleBucketIsRefused() async throws {
        try await refused(asset(bucket: 2), .unexpectedOutput(reason: "got bucket 2, expected 0 to 1"))
    }

    func testHalfPrecisionLogitsAreRefused() async throws {
        let half: [String: Any] = ["shape": [1, 3], "scalarType": "float16", "values": [0, 0, 0]]
        let changes = ["full": ["inputs": ["state": [1, 4]], "outputs": ["logits": half]]]
        let reason = "got values of type float16, expected float32 or int32"
        try await refused(asset(bucket: 1, changes: changes), .unexpectedOutput(reason: reason))
    }

    func testAnotherModelIsNoticed() async throws {
        let classifier = try await Classifier(asset(), description())
        do {
            try await classifier.load("b1")
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            let reason = #"got functions ["b0", "full", "stem"], expected ["stem", "b0", "full"]"#
            XCTAssertEqual(error, .modelMismatch(reason: reason))
        }
        let other = try asset(changes: ["stem": ["inputs": ["pixels": [1]], "outputs": [String: Any]()]])
        let reason = #"function stem takes ["pixels"], expected ["image"]"#
        try await refused(other, .modelMismatch(reason: reason))
    }

    func testEveryChoiceOfComputeUnits() {
        XCTAssertEqual(ComputeUnits.all.coreAI, .default)
        XCTAssertEqual(ComputeUnits.cpuOnly.coreAI, .cpuOnly)
        XCTAssertEqual(ComputeUnits.cpuAndNeuralEngine.coreAI.preferredComputeUnitKind, .neuralEngine)
        XCTAssertEqual(ComputeUnits.cpuAndGPU.coreAI.preferredComputeUnitKind, .gpu)
    }

    private func refused(_ asset: URL, _ expected: MoRViTError) async throws {
        do {
            _ = try await Classifier(asset, description()).predict(pixels)
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, expected)
        }
    }
}
