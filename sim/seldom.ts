/**
 * Legal moves between phases that need several rare things at once, with what they need. They are counted and printed,
 * but a run does not fail because one of them did not happen. In 10,000 seeds each happened fewer than 140 times.
 */
export const SELDOM: Record<string, string> = {
  'phase alone>fenced': 'forced failover from a cut off writer that is up again when it learns',
  'phase alone>waiting': 'as alone>fenced, and the group is being replicated back already',
  'phase copying>fenced': 'forced failover while the copy runs and the link holds',
  'phase copying>waiting': 'as copying>fenced, and the group is being replicated back already',
  'phase draining>closed': 'the control plane dies in a switch and the group is stopped next',
  'phase draining>fenced': 'the control plane dies in a switch and fails over next',
  'phase draining>opening': 'a stop and a start are both missed while draining',
  'phase fenced>promoting': 'failover back after a reprotect that never reached this site',
  'phase promoting>waiting': 'two operations later, a promotion that never finished',
  'phase receiving>fenced': 'a failover, a reprotect and a failover back are all missed in a copy',
  'phase receiving>promoting': 'forced failover to a side in the middle of a copy',
  'phase reconciling>closed': 'stop within the milliseconds of a reconcile',
  'phase reconciling>fenced': 'failover within the milliseconds of a reconcile',
  'phase reconciling>opening': 'link lost within the milliseconds of a reconcile',
  'phase reconciling>waiting': 'the answer to a switch arrives in a reconcile after a crash',
  'phase rising>alone': 'link lost between the end of the copy and the question to the witness',
  'phase rising>closed': 'stop within the milliseconds of a rise',
  'phase rising>fenced': 'failover within the milliseconds of a rise',
  'phase rising>opening': 'a stop and a start are both missed in a rise',
  'phase rising>waiting': 'a rise and a switch back are both missed',
  'phase waiting>fenced': 'a failover, a reprotect and a failover back are all missed',
}
