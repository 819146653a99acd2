/// Runs a model on prepared pixels, in whatever runtime.
package protocol PixelClassifying {
    /// Loads a function, unless it is loaded.
    func load(_ name: String) throws

    /// Classifies pixels; `watch` began when their preparation did.
    func predict(
        _ pixels: RGBPixels, since watch: Stopwatch, on actor: isolated any Actor
    ) async throws -> Prediction

    /// The features or tokens of pixels; `watch` began when their preparation did.
    func embed(
        _ pixels: RGBPixels, since watch: Stopwatch, on actor: isolated any Actor
    ) async throws -> Embedding
}

/// Runs pixels through a model's functions: the stem, the bucket that it chooses, and `full` after an overflow.
package struct Dispatcher<Functions: ModelFunctions>: PixelClassifying {
    private let description: ModelDescription
    private let functions: Functions

    package init(description: ModelDescription, functions: Functions) {
        self.description = description
        self.functions = functions
    }

    package func load(_ name: String) throws {
        try functions.load(name)
    }

    package func predict(
        _ pixels: RGBPixels, since watch: Stopwatch, on actor: isolated any Actor
    ) async throws -> Prediction {
        guard returned == .logits else { throw MoRViTError.otherOutput(returned) }
        let answer = try await answer(pixels, since: watch, on: actor)
        guard answer.values.count == description.classes else {
            throw MoRViTError.unexpectedOutput(
                reason: "got \(answer.values.count) logits, expected \(description.classes)"
            )
        }
        return Prediction(
            logits: answer.values, labels: description.labels, bucket: bucket(of: answer),
            bucketIndex: answer.choice.bucket, didOverflow: answer.choice.didOverflow, depth: answer.depth,
            timing: answer.timing, headActivation: description.headActivation ?? .softmax
        )
    }

    package func embed(
        _ pixels: RGBPixels, since watch: Stopwatch, on actor: isolated any Actor
    ) async throws -> Embedding {
        guard let shape = description.outputShape, returned != .logits else {
            throw MoRViTError.otherOutput(returned)
        }
        let answer = try await answer(pixels, since: watch, on: actor)
        return try Embedding(
            values: answer.values, shape: shape, bucket: bucket(of: answer), bucketIndex: answer.choice.bucket,
            didOverflow: answer.choice.didOverflow, depth: answer.depth, timing: answer.timing
        )
    }

    /// The name of the output, too.
    private var returned: ModelDescription.Output { description.output ?? .logits }

    private func bucket(of answer: Answer) -> DispatchTable.Bucket {
        description.dispatch.buckets[answer.choice.bucket]
    }

    private func answer(
        _ pixels: RGBPixels, since watch: Stopwatch, on actor: isolated any Actor
    ) async throws -> Answer {
        var watch = watch
        let image = try functions.image(pixels)
        let preprocess = watch.lap()
        try Task.checkCancellation()
        return description.isAdaptive
            ? try await runAdaptive(image, preprocess: preprocess, on: actor)
            : try await runSingle(image, preprocess: preprocess, on: actor)
    }

    private func runSingle(
        _ image: Functions.Value, preprocess: Duration, on actor: isolated any Actor
    ) async throws -> Answer {
        var watch = Stopwatch()
        let output = try await run("main", with: ["image": image], on: actor)
        return try answer(
            from: output, stem: nil, choice: DispatchTable.Choice(bucket: 0, didOverflow: false),
            timing: Prediction.Timing(preprocess: preprocess, trunk: watch.lap())
        )
    }

    private func runAdaptive(
        _ image: Functions.Value, preprocess: Duration, on actor: isolated any Actor
    ) async throws -> Answer {
        let table = description.dispatch
        var watch = Stopwatch()
        let stem = try await run("stem", with: ["image": image], on: actor)
        let predicted = try stem.number("bucket")
        guard table.buckets.indices.contains(predicted) else {
            throw MoRViTError.unexpectedOutput(
                reason: "got bucket \(predicted), expected 0 to \(table.last)"
            )
        }
        // the stem's own values go on as they are: nothing is copied
        let carried = try Dictionary(
            uniqueKeysWithValues: description.carried.map { ($0, try stem.value($0)) }
        )
        let stemTime = watch.lap()
        try Task.checkCancellation()
        var output = try await run(table.buckets[predicted].name, with: carried, on: actor)
        let choice = table.outcome(of: predicted, didOverflow: try output.flag("overflow"))
        if choice.bucket != predicted {
            try Task.checkCancellation()
            output = try await run(table.buckets[choice.bucket].name, with: carried, on: actor)
        }
        return try answer(
            from: output, stem: stem, choice: choice,
            timing: Prediction.Timing(preprocess: preprocess, stem: stemTime, trunk: watch.lap())
        )
    }

    private func run(
        _ name: String, with inputs: [String: Functions.Value], on actor: isolated any Actor
    ) async throws -> FunctionOutput<Functions> {
        let values = try await functions.run(name, with: inputs, on: actor)
        return FunctionOutput(function: name, values: values, functions: functions)
    }

    private func answer(
        from output: FunctionOutput<Functions>, stem: FunctionOutput<Functions>?, choice: DispatchTable.Choice,
        timing: Prediction.Timing
    ) throws -> Answer {
        let values = try output.floats(returned.rawValue)
        var depth: DepthMap?
        if description.answersDepth {
            let depths = try output.integers("depth") ?? stem?.integers("depth")
            guard let depths else {
                throw MoRViTError.unexpectedOutput(reason: "depth is missing")
            }
            depth = try DepthMap(side: description.patchesPerSide, depths: depths, steps: description.steps)
        }
        return Answer(values: values, choice: choice, depth: depth, timing: timing)
    }
}

/// What the functions returned for one image, whatever it stands for.
private struct Answer {
    let values: [Float]
    let choice: DispatchTable.Choice
    let depth: DepthMap?
    let timing: Prediction.Timing
}

/// Time from lap to lap.
package struct Stopwatch {
    private var start = ContinuousClock.now

    package init() {}

    package mutating func lap() -> Duration {
        let now = ContinuousClock.now
        defer { start = now }
        return now - start
    }
}
