// Streams, events and captures.
#include "stand_in.h"

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>

#include "launch.h"

host_stream *host_find_stream(CUstream stream)
{
    host_stream *found = host.streams.find(stream);
    return found && found->context == host_current() ? found : NULL;
}

void host_drain(uint64_t id, uint64_t ticket)
{
    host_stream *stream = host.streams.find(id);
    while (stream && !stream->stuck && !stream->queue.empty() && stream->done < ticket) {
        host_work work = std::move(stream->queue.front());
        host_context *context = host.contexts.find(stream->context);
        stream->queue.pop_front();
        stream->done++;
        CUresult result = context->error ? context->error : work();
        if (result == CUDA_ERROR_NOT_READY) {
            stream->queue.push_front(std::move(work));
            stream->done--;
            break;
        }
        if (result && !context->error)
            context->error = result;
    }
}

CUresult host_drain_all(uint64_t context)
{
    std::vector<uint64_t> ids;
    for (auto &entry : host.streams.objects)
        if (entry.second.context == context)
            ids.push_back(entry.first);
    std::vector<unsigned> order(ids.size());
    host_order(order.data(), (unsigned)order.size());
    for (unsigned i : order)
        host_drain(ids[i], UINT64_MAX);
    return host.contexts.find(context)->error;
}

void host_queue(host_stream *stream, host_work work, const void *memory)
{
    host_captured *captured = &stream->captured;
    if (captured->capture) {
        captured->tail = { host_graph_add(&captured->capture->graph, std::move(work), captured->tail, memory) };
    } else {
        stream->queue.push_back(std::move(work));
        stream->queued++;
    }
}

CUresult CUDAAPI cuStreamCreate(CUstream *stream, unsigned)
{
    return host_call_in_context(__func__, [&](host_context &) {
        *stream = host.streams.add<CUstream>({ host_current(), {}, 0, 0, {}, 0, false });
        return CUDA_SUCCESS;
    });
}

template <class Body> static CUresult call_of_stream(const char *function, CUstream stream, Body body)
{
    return host_call_in_context(function, [&](host_context &context) -> CUresult {
        host_stream *found = host_find_stream(stream);
        return found ? body(context, found) : CUDA_ERROR_INVALID_HANDLE;
    });
}

CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream)
{
    return call_of_stream(__func__, stream, [&](host_context &context, host_stream *) {
        host_drain((uint64_t)stream, UINT64_MAX);
        host.streams.remove(stream);
        return context.error;
    });
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream)
{
    return call_of_stream(__func__, stream, [&](host_context &context, host_stream *found) {
        if (found->captured.capture)
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        host_drain((uint64_t)stream, UINT64_MAX);
        if (found->stuck || !found->queue.empty()) {
            fprintf(stderr, "stand-in: a wait for what never ends, or for another process\n");
            abort();
        }
        return context.error;
    });
}

// At first, not yet.
CUresult CUDAAPI cuStreamQuery(CUstream stream)
{
    return call_of_stream(__func__, stream, [&](host_context &context, host_stream *found) {
        if (found->captured.capture)
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        if (context.error)
            return context.error;
        if (found->stuck || (found->queries++ % 2 == 0 && !found->queue.empty()))
            return CUDA_ERROR_NOT_READY;
        host_drain((uint64_t)stream, UINT64_MAX);
        return context.error || found->queue.empty() ? context.error : CUDA_ERROR_NOT_READY;
    });
}

CUresult CUDAAPI cuEventCreate(CUevent *event, unsigned)
{
    return host_call_in_context(__func__, [&](host_context &) {
        *event = host.events.add<CUevent>({ host_current(), 0, 0, {} });
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuEventDestroy_v2(CUevent event)
{
    return host_call_in_context(
        __func__, [&](host_context &) { return host.events.remove(event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream)
{
    return call_of_stream(__func__, stream, [&](host_context &, host_stream *found) {
        host_event *recorded = host.events.find(event);
        if (!recorded || recorded->context != found->context)
            return CUDA_ERROR_INVALID_HANDLE;
        *recorded = { recorded->context, (uint64_t)stream, found->queued, found->captured };
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuEventSynchronize(CUevent event)
{
    return host_call_in_context(__func__, [&](host_context &context) {
        const host_event *found = host.events.find(event);
        if (!found)
            return CUDA_ERROR_INVALID_HANDLE;
        if (found->captured.capture)
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        host_drain(found->stream, found->ticket);
        return context.error;
    });
}

// The event may be another device's.
CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned)
{
    return call_of_stream(__func__, stream, [&](host_context &, host_stream *found) {
        const host_event *awaited = host.events.find(event);
        if (!awaited)
            return CUDA_ERROR_INVALID_HANDLE;
        if (awaited->captured.capture) {
            host_captured *here = &found->captured;
            if (here->capture && here->capture != awaited->captured.capture)
                return CUDA_ERROR_STREAM_CAPTURE_MERGE;
            here->capture = awaited->captured.capture;
            here->tail.insert(here->tail.end(), awaited->captured.tail.begin(), awaited->captured.tail.end());
            return CUDA_SUCCESS;
        }
        if (found->captured.capture)
            return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        uint64_t other = awaited->stream, ticket = awaited->ticket;
        host_queue(found, [=] {
            host_drain(other, ticket);
            return CUDA_SUCCESS;
        });
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode)
{
    return call_of_stream(__func__, stream, [&](host_context &, host_stream *found) {
        if (found->captured.capture)
            return CUDA_ERROR_ILLEGAL_STATE;
        found->captured.capture = std::make_shared<host_capture>();
        found->captured.capture->origin = (uint64_t)stream;
        return CUDA_SUCCESS;
    });
}

CUresult CUDAAPI cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    return call_of_stream(__func__, stream, [&](host_context &, host_stream *found) {
        std::shared_ptr<host_capture> capture = found->captured.capture;
        std::vector<size_t> end = found->captured.tail;
        if (!capture || capture->origin != (uint64_t)stream)
            return CUDA_ERROR_ILLEGAL_STATE;
        bool joined = true;
        for (auto &entry : host.streams.objects) {
            host_captured *captured = &entry.second.captured;
            if (captured->capture != capture)
                continue;
            joined = joined && host_graph_is_joined(capture->graph, captured->tail, end);
            *captured = {};
        }
        *graph = joined ? host.graphs.add<CUgraph>(std::move(capture->graph)) : NULL;
        return joined ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    });
}
