import Foundation
import MoRViTKit
import Observation

/// Holds the classifier, passes it frames one after the other, and keeps the newest prediction for the views.
@MainActor
@Observable
final class Recognizer {
    enum State {
        case loading
        case ready(any MoRViTClassifying)
        case failed(Failure)
    }

    /// What a view shows of an error.
    struct Failure {
        let text: String

        init(_ error: any Error) {
            let advice = (error as? any LocalizedError)?.recoverySuggestion
            text = [error.localizedDescription, advice].compactMap { $0 }.joined(separator: " ")
        }
    }

    private(set) var state = State.loading
    private(set) var prediction: Prediction?
    private(set) var problem: Failure?

    private let makeClassifier: Load

    /// Loads the classifier; previews pass one that needs no model.
    typealias Load = @Sendable (ComputeUnits) async throws -> any MoRViTClassifying

    init(
        _ makeClassifier: @escaping Load = {
            try await MoRViTClassifier.load(computeUnits: $0, allowsUpscaling: true)
        }
    ) {
        self.makeClassifier = makeClassifier
    }

    var classifier: (any MoRViTClassifying)? {
        if case .ready(let classifier) = state { return classifier }
        return nil
    }

    /// The part of a picture's shorter side that the model sees.
    func visibleShare(width: Int, height: Int) -> Double {
        classifier?.description.preprocessing.visibleShare(width: width, height: height) ?? 1
    }

    /// Loads the model again; frames that arrive in the meantime are dropped.
    func load(_ units: ComputeUnits) async {
        state = .loading
        prediction = nil
        do {
            let classifier = try await makeClassifier(units)
            if !Task.isCancelled {
                state = .ready(classifier)
            }
        } catch {
            if !Task.isCancelled {
                state = .failed(Failure(error))
            }
        }
    }

    /// Classifies each frame in turn until the stream or the task ends. The stream keeps only the newest frame.
    func follow(_ frames: AsyncStream<InputImage>) async {
        for await frame in frames {
            await classify(frame)
        }
    }

    /// Classifies one picture.
    func classify(_ image: InputImage) async {
        guard let classifier else { return }
        do {
            prediction = try await classifier.predict(image)
            problem = nil
        } catch is CancellationError {
            return
        } catch {
            problem = Failure(error)
        }
    }
}
