import { isInstalled } from './lab/run.ts'

/** Why torture cannot run here; undefined: it can. */
export async function whyNot(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'it needs network namespaces of Linux'
  if (process.getuid?.() !== 0) return 'it needs root, for network namespaces and mounts'
  const programs: [string, ...string[]][] = [
    ['ip', '-V'],
    ['nft', '--version'],
    ['ss', '-V'],
    ['mkfs.xfs', '-V'],
    ['mke2fs', '-V'],
  ]
  for (const [program, ...args] of programs) {
    if (!(await isInstalled(program, ...args))) return `${program} is not installed`
  }
  return undefined
}
