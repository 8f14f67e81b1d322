import type { Random } from '../../../sim/world/random.ts'

/* A tree of files that forgets, at a power cut, what was not made durable.
 *
 * Every file has two contents: what is durable, and over it what was written since. fsync moves the second into the first.
 * Names are as on a journalling file system: their changes form one line, any fsync makes the whole line durable up to then, and
 * a power cut keeps some beginning of it.
 *
 * Of what was not durable a cut keeps as much as real hardware may: nothing, everything, or any pages in any order; a page that was
 * just being written may be half new.
 */

export const PAGE_BYTES = 4096
const SECTOR_BYTES = 512
const ROOT = 1

export interface FileNode {
  readonly kind: 'file'
  readonly id: number
  mode: number
  size: number
  durableSize: number
  readonly durable: Map<number, Buffer>
  /** null: a hole. */
  readonly fresh: Map<number, Buffer | null>
}

export interface DirectoryNode {
  readonly kind: 'directory'
  readonly id: number
  mode: number
  parent: number
  entries: Map<string, Node>
  durableEntries: Map<string, Node>
}

export type Node = FileNode | DirectoryNode

export type Errno = 'ENOENT' | 'EEXIST' | 'ENOTEMPTY' | 'ENOSPC' | 'ENXIO' | 'EISDIR' | 'ENOTDIR'

export class TreeError extends Error {
  readonly code: Errno

  constructor(code: Errno) {
    super(code)
    this.code = code
  }
}

export interface CutReport {
  readonly pagesLost: number
  readonly pagesKept: number
  readonly pagesTorn: number
  readonly namesLost: number
}

export class ForgetfulTree {
  readonly #nodes = new Map<number, Node>()
  /** Changes of names that are not durable, in order. */
  #journal: (() => void)[] = []
  #nextId = ROOT + 1
  /** No page can be added any more. */
  full = false

  constructor() {
    const entries = new Map<string, Node>()
    this.#nodes.set(ROOT, {
      kind: 'directory',
      id: ROOT,
      mode: 0o40755,
      parent: ROOT,
      entries,
      durableEntries: new Map(),
    })
  }

  node(id: number): Node {
    const node = this.#nodes.get(id)
    if (node === undefined) throw new TreeError('ENOENT')
    return node
  }

  file(id: number): FileNode {
    const node = this.node(id)
    if (node.kind !== 'file') throw new TreeError('EISDIR')
    return node
  }

  directory(id: number): DirectoryNode {
    const node = this.node(id)
    if (node.kind !== 'directory') throw new TreeError('ENOTDIR')
    return node
  }

  lookUp(parent: number, name: string): Node {
    const node = this.directory(parent).entries.get(name)
    if (node === undefined) throw new TreeError('ENOENT')
    return node
  }

  // ---------------------------------------------------------------- names

  createFile(parent: number, name: string, mode: number): FileNode {
    const node: FileNode = {
      kind: 'file',
      id: this.#nextId++,
      mode: 0o100000 | (mode & 0o7777),
      size: 0,
      durableSize: 0,
      durable: new Map(),
      fresh: new Map(),
    }
    this.#add(parent, name, node)
    return node
  }

  createDirectory(parent: number, name: string, mode: number): DirectoryNode {
    const node: DirectoryNode = {
      kind: 'directory',
      id: this.#nextId++,
      mode: 0o40000 | (mode & 0o7777),
      parent,
      entries: new Map(),
      durableEntries: new Map(),
    }
    this.#add(parent, name, node)
    return node
  }

  #add(parent: number, name: string, node: Node): void {
    const directory = this.directory(parent)
    if (directory.entries.has(name)) throw new TreeError('EEXIST')
    this.#nodes.set(node.id, node)
    directory.entries.set(name, node)
    this.#journal.push(() => directory.durableEntries.set(name, node))
  }

  remove(parent: number, name: string): void {
    const directory = this.directory(parent)
    const node = this.lookUp(parent, name)
    if (node.kind === 'directory' && node.entries.size > 0) throw new TreeError('ENOTEMPTY')
    directory.entries.delete(name)
    this.#journal.push(() => directory.durableEntries.delete(name))
  }

  rename(fromParent: number, from: string, toParent: number, to: string): void {
    const source = this.directory(fromParent)
    const target = this.directory(toParent)
    const node = this.lookUp(fromParent, from)
    const replaced = target.entries.get(to)
    if (replaced?.kind === 'directory' && replaced.entries.size > 0)
      throw new TreeError('ENOTEMPTY')
    source.entries.delete(from)
    target.entries.set(to, node)
    if (node.kind === 'directory') node.parent = toParent
    this.#journal.push(() => {
      source.durableEntries.delete(from)
      target.durableEntries.set(to, node)
    })
  }

  // ---------------------------------------------------------------- contents

  read(id: number, offset: number, length: number): Buffer {
    const file = this.file(id)
    const end = Math.min(offset + length, file.size)
    const data = Buffer.alloc(Math.max(0, end - offset))
    for (let at = offset; at < end; ) {
      const page = Math.floor(at / PAGE_BYTES)
      const inPage = at % PAGE_BYTES
      const count = Math.min(PAGE_BYTES - inPage, end - at)
      pageOf(file, page)?.copy(data, at - offset, inPage, inPage + count)
      at += count
    }
    return data
  }

  write(id: number, offset: number, data: Buffer): void {
    const file = this.file(id)
    const end = offset + data.length
    if (this.full) {
      for (let page = Math.floor(offset / PAGE_BYTES); page * PAGE_BYTES < end; page++) {
        if (pageOf(file, page) === undefined) throw new TreeError('ENOSPC')
      }
    }
    for (let at = offset; at < end; ) {
      const page = Math.floor(at / PAGE_BYTES)
      const inPage = at % PAGE_BYTES
      const count = Math.min(PAGE_BYTES - inPage, end - at)
      data.copy(freshPage(file, page), inPage, at - offset, at - offset + count)
      at += count
    }
    file.size = Math.max(file.size, end)
  }

  truncate(id: number, size: number): void {
    const file = this.file(id)
    if (size < file.size) this.#clear(file, size, file.size - size)
    file.size = size
  }

  /** Makes the range read as zeroes; whole pages become holes. `grow`: the file reaches at least to its end. */
  clear(id: number, offset: number, length: number, grow: boolean): void {
    const file = this.file(id)
    if (grow) file.size = Math.max(file.size, offset + length)
    this.#clear(file, offset, Math.min(offset + length, file.size) - offset)
  }

  #clear(file: FileNode, offset: number, length: number): void {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const page = Math.floor(at / PAGE_BYTES)
      const inPage = at % PAGE_BYTES
      const count = Math.min(PAGE_BYTES - inPage, end - at)
      if (pageOf(file, page) !== undefined) {
        if (count === PAGE_BYTES) file.fresh.set(page, null)
        else freshPage(file, page).fill(0, inPage, inPage + count)
      }
      at += count
    }
  }

  /** Like lseek: the first data, or hole, at or behind `offset`. The end of the file is a hole. */
  seek(id: number, offset: number, what: 'data' | 'hole'): number {
    const file = this.file(id)
    if (offset >= file.size) throw new TreeError('ENXIO')
    for (let page = Math.floor(offset / PAGE_BYTES); page * PAGE_BYTES < file.size; page++) {
      const isData = pageOf(file, page) !== undefined
      if (isData === (what === 'data')) return Math.max(offset, page * PAGE_BYTES)
    }
    if (what === 'data') throw new TreeError('ENXIO')
    return file.size
  }

  /** How many pages a file takes. */
  pages(id: number): number {
    const { durable, fresh } = this.file(id)
    return durable.size + fresh.size
  }

  /** The content is durable afterwards, and so is every name changed before. */
  sync(id: number): void {
    const node = this.node(id)
    if (node.kind === 'file') {
      for (const [page, content] of node.fresh) keepPage(node, page, content)
      node.fresh.clear()
      node.durableSize = node.size
    }
    for (const change of this.#journal.splice(0)) change()
  }

  // ---------------------------------------------------------------- the cut

  /** The power goes, and comes back: what is there afterwards is durable. */
  cut(random: Random): CutReport {
    const luck = random.pick([0, 0, 0.5, 0.9, 1])
    const journalKept = luck === 1 ? this.#journal.length : random.below(this.#journal.length + 1)
    const namesLost = this.#journal.length - journalKept
    for (const change of this.#journal.slice(0, journalKept)) change()
    this.#journal = []
    let pagesLost = 0
    let pagesKept = 0
    let pagesTorn = 0
    for (const node of this.#nodes.values()) {
      if (node.kind === 'directory') {
        node.entries = new Map(node.durableEntries)
        continue
      }
      let end = 0
      for (const [page, content] of node.fresh) {
        if (!random.chance(luck)) {
          pagesLost++
          continue
        }
        const torn = content !== null && random.chance(0.01)
        if (torn) {
          // The head of the new page over the rest of the old one.
          const mixed = Buffer.from(node.durable.get(page) ?? Buffer.alloc(PAGE_BYTES))
          content.copy(mixed, 0, 0, SECTOR_BYTES * (1 + random.below(7)))
          node.durable.set(page, mixed)
          pagesTorn++
        } else keepPage(node, page, content)
        pagesKept++
        end = Math.max(end, Math.min(node.size, (page + 1) * PAGE_BYTES))
      }
      node.fresh.clear()
      node.durableSize = luck === 1 ? node.size : Math.max(node.durableSize, end)
      node.size = node.durableSize
    }
    this.#forgetUnreachable()
    return { pagesLost, pagesKept, pagesTorn, namesLost }
  }

  #forgetUnreachable(): void {
    const reached = new Set<number>([ROOT])
    const visit = (directory: DirectoryNode) => {
      for (const node of directory.entries.values()) {
        reached.add(node.id)
        if (node.kind === 'directory') visit(node)
      }
    }
    visit(this.directory(ROOT))
    for (const id of this.#nodes.keys()) if (!reached.has(id)) this.#nodes.delete(id)
  }
}

function pageOf(file: FileNode, page: number): Buffer | undefined {
  const fresh = file.fresh.get(page)
  return fresh === undefined ? file.durable.get(page) : (fresh ?? undefined)
}

/** The page's own copy, which may be written to. */
function freshPage(file: FileNode, page: number): Buffer {
  const fresh = file.fresh.get(page)
  if (fresh !== undefined && fresh !== null) return fresh
  const old = fresh === null ? undefined : file.durable.get(page)
  const copy = old === undefined ? Buffer.alloc(PAGE_BYTES) : Buffer.from(old)
  file.fresh.set(page, copy)
  return copy
}

function keepPage(file: FileNode, page: number, content: Buffer | null): void {
  if (content === null) file.durable.delete(page)
  else file.durable.set(page, content)
}
