import Foundation

// Names of earlier versions: apps that use them compile, and Xcode offers the new ones.

extension ModelDescription {
    /// The description of the model `MoRViT` in the app.
    @available(*, deprecated, renamed: "init(named:in:)")
    public static func bundled() throws -> ModelDescription { try ModelDescription() }
}

extension ModelDescription.Input {
    /// Normalized numbers.
    @available(*, deprecated, renamed: "normalized")
    public static var normalised: Self { .normalized }
}

extension Preprocessing {
    /// Prepared pixels as numbers.
    @available(*, deprecated, renamed: "normalized(_:)")
    public func normalise(_ pixels: RGBPixels) -> [Float] { normalized(pixels) }
}

extension Turn {
    /// Rows of anything, turned.
    @available(*, deprecated, renamed: "applied(to:)")
    public func apply<Element>(to rows: [[Element]]) -> [[Element]] { applied(to: rows) }
}

extension DepthMap {
    /// Red, green and blue of a depth.
    @available(*, deprecated, renamed: "color(depth:lowest:highest:)")
    public static func colour(depth: Double, lowest: Int, highest: Int) -> [Double] {
        color(depth: depth, lowest: lowest, highest: highest)
    }
}

extension DispatchTable {
    /// Which bucket's output counts after `bucket` ran.
    @available(*, deprecated, renamed: "outcome(of:didOverflow:)")
    public func outcome(of bucket: Int, overflow: Bool) -> Choice { outcome(of: bucket, didOverflow: overflow) }
}

extension DispatchTable.Choice {
    /// Was another bucket run first, in vain?
    @available(*, deprecated, renamed: "didOverflow")
    public var overflow: Bool { didOverflow }

    /// Both values.
    @available(*, deprecated, renamed: "init(bucket:didOverflow:)")
    public init(bucket: Int, overflow: Bool) { self.init(bucket: bucket, didOverflow: overflow) }
}

extension Prediction {
    /// The index of the bucket.
    @available(*, deprecated, renamed: "bucketIndex")
    public var bucketNumber: Int { bucketIndex }

    /// Was a smaller bucket run first, in vain?
    @available(*, deprecated, renamed: "didOverflow")
    public var overflow: Bool { didOverflow }
}
