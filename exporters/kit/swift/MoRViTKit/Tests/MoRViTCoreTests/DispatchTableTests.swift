import XCTest

@testable import MoRViTCore

final class DispatchTableTests: XCTestCase {
    func testBucketsAreChosenAsInCalibration() throws {
        let table = try Vectors.model().dispatch
        let cases = try Vectors.load().dispatch
        XCTAssertFalse(cases.isEmpty)
        for expected in cases {
            XCTAssertEqual(
                table.choice(counts: expected.counts),
                DispatchTable.Choice(bucket: expected.bucket, didOverflow: expected.overflow),
                "\(expected.counts)"
            )
        }
    }

    func testTheLastBucketRunsAfterAnOverflow() {
        let table = DispatchTable(
            mode: .threshold, lead: 0,
            buckets: [
                .init(name: "b0", capacity: [4, 2], macs: 1, upto: 4),
                .init(name: "b1", capacity: [8, 4], macs: 2, upto: 8),
                .init(name: "full", capacity: [16, 16], macs: 3, upto: 16),
            ]
        )
        XCTAssertEqual(table.outcome(of: 1, didOverflow: true), .init(bucket: 2, didOverflow: true))
        XCTAssertEqual(table.outcome(of: 1, didOverflow: false), .init(bucket: 1, didOverflow: false))
        XCTAssertEqual(table.choice(counts: [4, 3]), .init(bucket: 2, didOverflow: true))
        XCTAssertEqual(table.choice(counts: [5, 4]), .init(bucket: 1, didOverflow: false))
    }

    func testDepthsChooseTheFirstBucketThatHoldsThem() {
        let table = DispatchTable(
            mode: .depth, lead: 0,
            buckets: [
                .init(name: "b0", capacity: [16, 9, 4], macs: 1), .init(name: "full", capacity: [16, 16, 16], macs: 2),
            ]
        )
        XCTAssertEqual(table.choice(counts: [16, 9, 4]), .init(bucket: 0, didOverflow: false))
        XCTAssertEqual(table.choice(counts: [16, 9, 5]), .init(bucket: 1, didOverflow: false))
    }
}
