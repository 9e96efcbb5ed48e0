// Milliseconds of lf_ranks_sum, either way, beside two floors: the plain exchange of the same bytes, and memcpy of
// them.
//   mpirun -n 2 bench_ranks [MB…]   by default several up to 100
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ranks/internal.h"

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void must(bool done, const lf_error *err)
{
    if (done)
        return;
    fprintf(stderr, "%s\n", err->text);
    lf_ranks_abort(1);
}

typedef struct bench {
    uint32_t rank, count, shards;
    float *values, *other;
    size_t n;
    lf_ranks_part parts[256];
} bench;

static void run_sum(bench *b, lf_sum_way way)
{
    lf_error err;
    must(lf_ranks_sum_by(way, b->parts, b->shards, b->values, b->n, &err), &err);
}

static void run_gathered(bench *b)
{
    run_sum(b, LF_SUM_GATHERED);
}

static void run_sliced(bench *b)
{
    run_sum(b, LF_SUM_SLICED);
}

// A slice to every other rank and one from it, then one's own slice to all: each is one message.
static void run_exchange(bench *b)
{
    const lf_ranks_world *world = lf_ranks_get();
    const lf_mpi *mpi = &world->mpi;
    const size_t each = b->n / b->count;
    lf_error err;
    for (unsigned twice = 0; twice < 2; twice++)
        for (uint32_t k = 1; k < b->count; k++) {
            const uint32_t to = (b->rank + k) % b->count, from = (b->rank + b->count - k) % b->count;
            lf_mpi_slot in, out;
            must(lf_mpi_check(mpi,
                              mpi->irecv(b->other + from * each, (int)(each * sizeof(float)), mpi->byte, (int)from, 9,
                                         world->comm, &in),
                              "MPI_Irecv", &err),
                 &err);
            must(lf_mpi_check(mpi,
                              mpi->isend(b->values + (twice ? b->rank : to) * each, (int)(each * sizeof(float)),
                                         mpi->byte, (int)to, 9, world->comm, &out),
                              "MPI_Isend", &err),
                 &err);
            must(lf_mpi_check(mpi, mpi->wait(&in, mpi->no_status), "MPI_Wait", &err), &err);
            must(lf_mpi_check(mpi, mpi->wait(&out, mpi->no_status), "MPI_Wait", &err), &err);
        }
}

// As many bytes as a rank receives: shared memory's ways copy them once or twice.
static void run_memcpy(bench *b)
{
    const size_t each = b->n / b->count;
    for (uint32_t k = 1; k < b->count; k++) {
        memcpy(b->other, b->values + k * each, each * sizeof(float));
        memcpy(b->other + k * each, b->values, each * sizeof(float));
    }
}

// Best of several runs that all ranks begin together, in milliseconds.
static double time_of(bench *b, void (*run)(bench *))
{
    lf_error err;
    double best = 1e9, until = seconds() + 0.5;
    uint32_t more = 1;
    while (more) {
        must(lf_ranks_barrier(&err), &err);
        double start = seconds();
        run(b);
        double time = seconds() - start;
        best = time < best ? time : best;
        more = seconds() < until;
        must(lf_ranks_broadcast(&more, sizeof more, &err), &err);
    }
    return 1e3 * best;
}

static void line(bench *b, double megabytes)
{
    const double gathered_most = 16; // megabytes; above, only the other way is of use
    b->n = (size_t)(megabytes * 1e6 / sizeof(float));
    b->values = calloc(b->n, sizeof(float));
    b->other = calloc(b->n, sizeof(float));
    if (!b->values || !b->other)
        exit(1);
    memset(b->other, 0, b->n * sizeof(float));
    for (uint32_t s = 0; s < b->shards; s++)
        b->parts[s] = (lf_ranks_part){ s, 1, s % b->count == b->rank ? b->values : NULL, s % b->count };
    double sliced = time_of(b, run_sliced), gathered = megabytes > gathered_most ? 0 : time_of(b, run_gathered);
    double exchange = time_of(b, run_exchange), copy = time_of(b, run_memcpy);
    if (!b->rank)
        printf("%9.3f %10.3f %10.3f %10.3f %10.3f %8.2f\n", megabytes, sliced, gathered, exchange, copy,
               sliced / exchange);
    free(b->values);
    free(b->other);
}

int main(int argc, char **argv)
{
    static const double sizes[] = { 0.001, 0.004, 0.016, 0.032, 0.064, 0.128, 0.256, 1, 10, 100 };
    bench b = { .shards = 1 };
    lf_error err;
    must(lf_ranks_open(&b.rank, &b.count, &err), &err);
    while (b.shards < b.count)
        b.shards *= 2;
    if (!b.rank)
        printf("%u ranks, milliseconds\n%9s %10s %10s %10s %10s %8s\n", b.count, "MB", "sliced", "gathered", "exchange",
               "memcpy", "sliced/x");
    for (int i = 1; i < argc; i++)
        line(&b, strtod(argv[i], NULL));
    for (size_t i = 0; argc < 2 && i < sizeof sizes / sizeof *sizes; i++)
        line(&b, sizes[i]);
    lf_ranks_close();
    return 0;
}
