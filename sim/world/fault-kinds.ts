/* What can go wrong. */

export const FAULTS = [
  'agent-crash',
  'agent-clean-stop',
  'agent-pause',
  'power-loss',
  'power-loss-both',
  'site-loss',
  'site-isolated',
  'link-cut',
  'link-cut-one-way',
  'witness-cut',
  'link-reset',
  'link-silence',
  'network-slow',
  'witness-crash',
  'witness-power-loss',
  'witness-pause',
  'witness-restored',
  'slow-fsync',
  'wall-clock-jump',
  'no-space',
  'disk-fails',
  'bit-flip',
  'link-flaps',
] as const
export type FaultKind = (typeof FAULTS)[number]

/** So many faults that broke something every seed has to have had; a run with a seed that had fewer fails. */
export const FAULTS_MIN = 5
