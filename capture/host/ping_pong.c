/* Two threads tell each other the time through two flags: what eidola_ping_pong (fused_gpu.h) does between GPUs. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { SPINS = 200 }; /* polls between two yields: with one core the other thread must get it */

struct game {
    _Alignas(64) _Atomic int64_t ping;
    _Alignas(64) _Atomic int64_t pong;
    _Alignas(64) int64_t peer_ns; /* published by pong */
    int64_t rounds, deadline_ns;
    clockid_t peer_clock;
};

static int64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* 0: the deadline (CLOCK_MONOTONIC) passed. */
static int reached(const _Atomic int64_t *flag, int64_t value, int64_t deadline_ns)
{
    for (int64_t polls = 1; atomic_load_explicit(flag, memory_order_acquire) < value; polls++)
        if (polls % SPINS == 0) {
            if (read_ns(CLOCK_MONOTONIC) > deadline_ns)
                return 0;
            sched_yield();
        }
    return 1;
}

static void *answer(void *argument)
{
    struct game *game = argument;
    for (int64_t round = 1; round <= game->rounds; round++) {
        if (!reached(&game->ping, round, game->deadline_ns))
            break;
        game->peer_ns = read_ns(game->peer_clock);
        atomic_store_explicit(&game->pong, round, memory_order_release);
    }
    return NULL;
}

/* Fills `samples` (rounds, 3): sent, the peer's time, received. Returns how many rounds were played. */
int64_t eidola_ping_pong_threads(int64_t rounds, int leader_clock, int peer_clock, int64_t wait_ns, int64_t *samples)
{
    struct game game = {.rounds = rounds, .deadline_ns = read_ns(CLOCK_MONOTONIC) + wait_ns, .peer_clock = peer_clock};
    pthread_t peer;
    int64_t round = 0;
    if (pthread_create(&peer, NULL, answer, &game))
        return 0;
    for (; round < rounds; round++) {
        const int64_t sent = read_ns(leader_clock);
        atomic_store_explicit(&game.ping, round + 1, memory_order_release);
        if (!reached(&game.pong, round + 1, game.deadline_ns))
            break;
        const int64_t received = read_ns(leader_clock);
        samples[3 * round] = sent;
        samples[3 * round + 1] = game.peer_ns;
        samples[3 * round + 2] = received;
    }
    pthread_join(peer, NULL);
    return round;
}
