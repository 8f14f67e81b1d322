/**
 * Legal moves between phases that need several rare things at once, with what they need. They are counted and printed,
 * but a run does not fail because one of them did not happen. Each was met fewer than 140 times in 10,000 seeds when it was entered.
 */
export const SELDOM: Record<string, string> = {
  'phase alone>fenced': 'forced failover from a cut off writer that is up again when it learns',
  'phase alone>waiting': 'as alone>fenced, and the group is being replicated back already',
  'move failover from solo':
    'a forced failover that does not freeze first, from a writer that died alone',
  'phase alone>closed': 'stop within the moments between a lease and a copy',
  'phase alone>opening': 'the record of a new state reaches a writer without a lease',
  'phase catching_up>closed': 'stop within the moments of catching up',
  'phase catching_up>fenced':
    'failover, missed by the side that was to be demoted, while catching up',
  'phase catching_up>frozen': 'freeze within the moments of catching up',
  'phase catching_up>promoting': 'forced failover within the moments of catching up',
  'phase draining>frozen': 'the control plane dies in a switch and the group is frozen next',
  'phase fenced>frozen': 'failover back and a freeze are both missed',
  'phase following>fenced': 'a failover that the writer hears of while the link still stands',
  'phase following>frozen': 'a freeze that the writer hears of before its link is dropped',
  'phase opening>catching_up': 'the link comes up before the lease',
  'phase promoting>catching_up':
    'a promotion that is frozen, thawed and linked before its first lease',
  'phase promoting>fenced': 'a promotion that never finished, and a failover back',
  'phase receiving>frozen': 'failover and freeze are both missed in a copy',
  'phase reconciling>frozen': 'freeze within the milliseconds of a reconcile',
  'phase rising>frozen': 'freeze within the milliseconds of a rise',
  'phase rising>held':
    'link lost within the milliseconds between the commit of a rise and the news of it',
  'phase waiting>frozen': 'failover and freeze are both missed',
  'phase copying>closed': 'stop within a copy, heard while the link stands',
  'phase copying>fenced': 'forced failover while the copy runs and the link holds',
  'phase copying>waiting': 'as copying>fenced, and the group is being replicated back already',
  'phase draining>closed': 'the control plane dies in a switch and the group is stopped next',
  'phase draining>fenced': 'the control plane dies in a switch and fails over next',
  'phase draining>opening': 'a stop and a start are both missed while draining',
  'phase fenced>opening':
    'the witness forgets a failover in sync, and its answer to the old writer was on its way',
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
