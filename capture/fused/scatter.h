/* The one exchange of an all-to-all kernel: remote slices first, a flag after each, then the own slice.
 *
 * The kernel's file defines scatter_slice(group, owner): this workgroup's tiles of the slice that belongs to
 * rank `owner`, stored straight into its `results` (a rank's slice from each source, one after the other).
 */
enum { REMOTE_TILES, LOCAL_TILES, WAIT_RESULTS }; /* phases, in order */
enum { RESULTS };                                 /* the region and the exchange */
enum { FUSED_EXCHANGES = 1 };

EIDOLA_FN void scatter_slice(fused_group *group, eidola_i64 owner);

EIDOLA_FN int fused_wait_phase(int exchange) { return exchange + WAIT_RESULTS; }

EIDOLA_FN void fused_work(fused_group *group, int exchange)
{
    const fused_base *base = (const fused_base *)group->job; /* its first member */
    eidola_phase_begin(&group->probe, REMOTE_TILES, group->epoch);
    for (eidola_i64 hop = 1; hop < base->ranks; hop++) {
        eidola_i64 peer = fused_peer(base, group->rank, hop);
        scatter_slice(group, peer);
        fused_raise(group, base, exchange, peer);
    }
    eidola_phase_end(&group->probe, REMOTE_TILES, group->epoch);
    eidola_phase_begin(&group->probe, LOCAL_TILES, group->epoch);
    scatter_slice(group, group->rank);
    fused_sync();
    eidola_phase_end(&group->probe, LOCAL_TILES, group->epoch);
}
