import type { Coverage } from './coverage.ts'
import type { Site } from './site.ts'
import { type Truth, Violation } from './truth.ts'

/* What each site holds of the group besides the writer's truth, as the observer knows it: promise 5 of docs/architecture/replication.md.
 *
 *   usable       some state of the group is there, or kept: a resync may not destroy it
 *   overwritten  the volumes are in the middle of a resync
 *   left         what an ended session left, while nobody has written over it; and whose kept copy it became
 *   torn         blocks of several moments: the power went while writes were on their way to the disk, and nobody has compared since
 */
export class Copies {
  readonly #coverage: Coverage
  readonly #truth: Truth
  readonly #usable = new Set<string>()
  readonly #overwritten = new Set<string>()
  readonly #left = new Map<string, { readonly image: Int32Array; kept: string | null }>()
  readonly #torn = new Set<string>()
  /** Kept copies of a torn image, by site and id. */
  readonly #tornKept = new Set<string>()

  constructor(coverage: Coverage, truth: Truth) {
    this.#coverage = coverage
    this.#truth = truth
  }

  /** `site` says that it is a prefix, and nothing speaks against it. */
  claimed(site: Site): void {
    this.#usable.add(site.name)
    this.#overwritten.delete(site.name)
    this.#torn.delete(site.name)
  }

  /** That it is consistent was written just before the end of its process: everything that it speaks of had been made durable first. */
  wasConsistent(site: Site): void {
    this.#overwritten.delete(site.name)
    this.#torn.delete(site.name)
  }

  /** `site` begins to answer as the writer: what it has is the truth. */
  begins(site: Site): void {
    if (this.#overwritten.has(site.name) && this.#usable.has(site.name)) {
      throw new Violation(`promise 5: ${site.name} begins to serve the middle of a resync`)
    }
    this.claimed(site)
    this.#left.delete(site.name)
  }

  /** A frame of a resync was applied. */
  overwritten(site: Site): void {
    this.#truth.disturbed(site.name)
    this.#overwritten.add(site.name)
    if (!this.#usable.has(site.name)) return
    // What the side itself has persisted says where to go back to, whatever happens to its process now.
    const { kept } = site.epoch.value
    if (kept === null || !site.kept.has(kept)) {
      throw new Violation(`promise 5: ${site.name} is overwritten, and no consistent copy is kept`)
    }
  }

  /** The copy that a resync goes back to is taken. `prefix`: the side says that it is one. */
  keeps(site: Site, id: string, prefix: boolean): void {
    if (prefix) this.#truth.consistent(site.name, site.disk.current)
    const left = this.#left.get(site.name)
    if (left?.kept === null) {
      this.#isLeft(site, 'keeps')
      left.kept = id
      this.#coverage.count('kept what was left')
    } else if (left !== undefined) this.#left.delete(site.name)
    if (this.#torn.has(site.name)) {
      this.#saysTorn(site, 'keeps')
      this.#tornKept.add(`${site.name} ${id}`)
    }
    site.kept.set(id, site.disk.current.slice())
    // It takes the place of whatever had this name: the product's snapshots have one name space.
    site.divergences = site.divergences.filter((one) => one.id !== id)
  }

  /** The volumes of `site` are what was kept. */
  restored(site: Site, id: string): void {
    if (this.#left.get(site.name)?.kept === id) {
      this.#isLeft(site, 'goes back to')
      this.#coverage.count('went back to what was left')
    }
    if (this.#tornKept.has(`${site.name} ${id}`)) this.#torn.add(site.name)
    else this.#torn.delete(site.name)
    this.#overwritten.delete(site.name)
    this.#truth.disturbed(site.name)
  }

  /** The session of `site` has ended. What is left there counts when it is noted as its copy; the next session keeps it before it is overwritten. */
  ended(site: Site): void {
    if (!site.left) {
      this.#usable.delete(site.name)
      this.#left.delete(site.name)
    } else if (site.joined) {
      this.#left.set(site.name, { image: site.disk.current.slice(), kept: null })
      // The middle of a resync is nothing to leave.
      if (this.#overwritten.has(site.name)) {
        throw new Violation(`promise 5: ${site.name} leaves the middle of a resync as its copy`)
      }
      if (this.#torn.has(site.name)) this.#saysTorn(site, 'leaves')
      this.#usable.add(site.name)
    }
    this.#overwritten.delete(site.name)
  }

  /** Blocks of several moments are worth keeping, and must be called so. */
  #saysTorn(site: Site, does: string): void {
    const { consistent, divergent, torn } = site.epoch.value
    if (consistent && !divergent && !torn) {
      throw new Violation(
        `promise 5: ${site.name} ${does} as a copy of one moment what went through a loss of power`,
      )
    }
    this.#coverage.count(`torn copy ${does}`)
  }

  /** What an ended session left at `site` is all there. */
  #isLeft(site: Site, does: string): void {
    const image = this.#left.get(site.name)?.image
    const block = image?.findIndex((value, at) => value !== site.disk.current[at]) ?? -1
    if (block < 0) return
    throw new Violation(
      `promise 5: ${site.name} ${does} what its session left there, but block ${block} holds ${site.disk.current[block]} instead of ${image?.[block]}`,
    )
  }

  /** Its host has lost its power. `changed`: so has what its disk holds. */
  lostPower(site: Site, changed: boolean): void {
    if (changed) {
      this.#truth.disturbed(site.name)
      this.#torn.add(site.name)
    }
    const { kept } = site.epoch.value
    const left = this.#left.get(site.name)
    if (left?.kept === null) this.#isLeft(site, 'comes back without')
    else if (kept === null || !site.kept.has(kept)) this.#usable.delete(site.name)
  }

  /** Its disk has failed, or was replaced by an empty one. */
  nothing(site: Site): void {
    this.#truth.disturbed(site.name)
    this.#usable.delete(site.name)
    this.#left.delete(site.name)
    this.#torn.delete(site.name)
    site.left = false
  }

  /** The first copy of a replaced disk has not begun. */
  blank(site: Site): void {
    this.#overwritten.delete(site.name)
  }
}
