import { join } from 'node:path'

/* What lies where under the directory of `holdfast up`, and which parts the embedded system has.
 *
 *     DIR/credentials.json       the first administrator, mode 0600, written on the first run only
 *     DIR/up.pid  up.sock  up.lock   the supervisor itself
 *     DIR/run/PART.pid           one per process, present while it runs
 *     DIR/log/PART.log           one per process, JSON lines (PART.log.1 is the one before)
 *     DIR/config/up.json         addresses, kept so that every start uses the same ones
 *     DIR/config/PART.json       configuration of each part, written anew at each start
 *     DIR/pki/                   the authority and one certificate per part, keys mode 0600
 *     DIR/vault-REGION/          the vault of a region's backups; DIR/pki/vault-REGION.key opens it
 *     DIR/PART/                  what the part keeps
 */

export interface Paths {
  readonly root: string
  readonly credentials: string
  readonly pid: string
  readonly door: string
  readonly lock: string
  readonly run: string
  readonly log: string
  readonly config: string
  readonly settings: string
  readonly pki: string
}

export function pathsUnder(root: string): Paths {
  return {
    root,
    credentials: join(root, 'credentials.json'),
    pid: join(root, 'up.pid'),
    door: join(root, 'up.sock'),
    lock: join(root, 'up.lock'),
    run: join(root, 'run'),
    log: join(root, 'log'),
    config: join(root, 'config'),
    settings: join(root, 'config', 'up.json'),
    pki: join(root, 'pki'),
  }
}

export interface RegionPlan {
  readonly region: string
  readonly control: string
  /** The site's name in the region, the name by which `holdfast site` calls it, and its agent's part. */
  readonly sites: readonly { readonly site: string; readonly key: string; readonly agent: string }[]
}

/** Two sites in the first region; a second region with one site, as a place for replicated backups. */
export const REGIONS: readonly RegionPlan[] = [
  {
    region: 'local-1',
    control: 'control',
    sites: [
      { site: 'az1', key: 'az1', agent: 'az1-agent' },
      { site: 'az2', key: 'az2', agent: 'az2-agent' },
    ],
  },
  {
    region: 'local-2',
    control: 'r2-control',
    sites: [{ site: 'az1', key: 'r2-az1', agent: 'r2-az1-agent' }],
  },
]

/** A process that the supervisor keeps running. */
export interface PartSpec {
  readonly name: string
  readonly kind: 'control' | 'agent'
  /** Undefined for a control plane. */
  readonly site: string | undefined
  readonly configFile: string
  readonly pidFile: string
  readonly logFile: string
  readonly command: readonly string[]
  /** Keys that the configuration file sets: their variables are taken out of the environment of the part. */
  readonly optionsDecided: readonly string[]
}

export const partFiles = (
  paths: Paths,
  name: string,
): { configFile: string; pidFile: string; logFile: string; dataDir: string } => ({
  configFile: join(paths.config, `${name}.json`),
  pidFile: join(paths.run, `${name}.pid`),
  logFile: join(paths.log, `${name}.log`),
  dataDir: join(paths.root, name),
})

export const vaultOf = (paths: Paths, region: string): string => join(paths.root, `vault-${region}`)

export const nbdSocketOf = (paths: Paths, agent: string): string =>
  join(paths.root, agent, 'nbd.sock')
