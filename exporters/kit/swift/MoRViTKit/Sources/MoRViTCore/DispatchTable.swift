import Foundation

/// The buckets, cheapest first, and the rule that chooses one of them.
///
/// The last bucket is `full`: every token in every step, so that every image has a bucket.
public struct DispatchTable: Codable, Sendable, Hashable {
    /// How a bucket is chosen.
    public enum Mode: String, Codable, Sendable {
        /// There is one bucket.
        case topk
        /// It is predicted from the count of the first routed step; where that bucket is too small, `full` runs, too.
        case threshold
        /// The stem knows the depth of every token, so the bucket always fits.
        case depth
    }

    /// One static graph.
    public struct Bucket: Codable, Sendable, Hashable {
        /// The name of its function in the package.
        public let name: String
        /// Most patch tokens that run each step.
        public let capacity: [Int]
        /// Multiply–accumulates of one image.
        public let macs: Int
        /// The part of the calibration images that it was chosen for.
        public let share: Double?
        /// Mode `threshold`: it serves images of which at most so many patch tokens run the first routed step.
        public let upto: Int?

        /// All values.
        public init(name: String, capacity: [Int], macs: Int, share: Double? = nil, upto: Int? = nil) {
            self.name = name
            self.capacity = capacity
            self.macs = macs
            self.share = share
            self.upto = upto
        }

        func holds(_ counts: [Int]) -> Bool {
            zip(counts, capacity).allSatisfy { $0 <= $1 }
        }
    }

    /// A bucket, and whether the one that was predicted was too small.
    public struct Choice: Sendable, Hashable {
        /// Index of the bucket whose output counts.
        public let bucket: Int
        /// Was another bucket run first, in vain?
        public let didOverflow: Bool

        /// Both values.
        public init(bucket: Int, didOverflow: Bool) {
            self.bucket = bucket
            self.didOverflow = didOverflow
        }
    }

    /// How a bucket is chosen.
    public let mode: Mode
    /// The first routed step, from 0.
    public let lead: Int
    /// Cheapest first.
    public let buckets: [Bucket]

    /// All values.
    public init(mode: Mode, lead: Int, buckets: [Bucket]) {
        self.mode = mode
        self.lead = lead
        self.buckets = buckets
    }

    /// Index of the bucket that serves every image.
    public var last: Int { buckets.count - 1 }

    /// The bucket for an image of which `counts` patch tokens run each step.
    ///
    /// The model decides this itself; here it is for planning and for explaining a prediction.
    public func choice(counts: [Int]) -> Choice {
        switch mode {
        case .topk:
            return Choice(bucket: 0, didOverflow: false)
        case .depth:
            let first = buckets.firstIndex { $0.holds(counts) }
            return Choice(bucket: first ?? last, didOverflow: false)
        case .threshold:
            let predicted = buckets.firstIndex { counts[lead] <= $0.upto ?? Int.max } ?? last
            return outcome(of: predicted, didOverflow: !buckets[predicted].holds(counts))
        }
    }

    /// Whose output counts after `bucket` ran: its own, or the last bucket's when it overflowed.
    public func outcome(of bucket: Int, didOverflow: Bool) -> Choice {
        Choice(bucket: didOverflow ? last : bucket, didOverflow: didOverflow)
    }
}
