import XCTest

@testable import MoRViTCore

/// Names of earlier versions give what the new ones give.
@available(*, deprecated)
final class DeprecatedTests: XCTestCase {
    func testOldNamesStillWork() throws {
        let pixels = try RGBPixels(width: 1, height: 1, bytes: [0, 128, 255])
        let preprocessing = try Vectors.model().preprocessing
        XCTAssertEqual(preprocessing.normalise(pixels), preprocessing.normalized(pixels))
        XCTAssertEqual(ModelDescription.Input.normalised, .normalized)
        XCTAssertEqual(
            DepthMap.colour(depth: 1, lowest: 0, highest: 3), DepthMap.color(depth: 1, lowest: 0, highest: 3)
        )
        XCTAssertEqual(try Turn(orientation: 6).apply(to: [[1, 2]]), [[1], [2]])
        let choice = DispatchTable.Choice(bucket: 1, overflow: true)
        XCTAssertTrue(choice.overflow)
        XCTAssertEqual(choice, DispatchTable.Choice(bucket: 1, didOverflow: true))
        let table = try Vectors.model().dispatch
        XCTAssertEqual(table.outcome(of: 0, overflow: true), table.outcome(of: 0, didOverflow: true))
        let prediction = Prediction(logits: [0], bucket: table.buckets[0], bucketIndex: 2, didOverflow: true)
        XCTAssertEqual(prediction.bucketNumber, 2)
        XCTAssertTrue(prediction.overflow)
    }
}
