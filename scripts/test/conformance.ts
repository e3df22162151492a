// SPDX-License-Identifier: Apache-2.0
// Which items of the conformance list a test run showed. An item stands in the name of each test that shows it, such as
// "HL-33 GC frees what no valid attachment owns"; the table of docs/conformance.md is made of nothing else.

export type Outcome = 'pass' | 'fail' | 'skip'
export type Finding = {
  /** The whole name of a test. */
  readonly name: string
  /** Path of its file, from the root. */
  readonly file: string
  readonly outcome: Outcome
  /** Why it was not run. */
  readonly reason?: string
}

/** The items that a release has to fulfil. Those that stand in no line are looked at too, but hold up no release. */
const GATE: Readonly<Record<string, string>> = {
  CAC: '01-02 04-07 09',
  CAP: '01-02 06',
  CHK: '01-12',
  CHN: '01-05 07 09-12',
  COM: '01-10 13-15 18',
  DEL: '01-12',
  DLG: '01-06',
  ENV: '01-02 04 06-11 13-15 18 21-26 28',
  ERR: '01-10 12-16 18',
  EXE: '01 03-04 07-08',
  GC: '01-09 11',
  HD: '01-02 05 07-10 12',
  HL: '01 05 07 13 15-16 18 21 23 25-26 28-29 31-34',
  IPV: '01 03 05 07-10',
  LIB: '01 03 05-11 13-14',
  LO: '01-02 05',
  MAC: '02 04 07 09-11',
  PTP: '03 05-07 09-11',
  RES: '01-08 11-12 14-17 19-21',
  ROB: '01-04 06 09-10',
  ST: '03-04 08',
  STA: '01-03 05-07',
  TOOL: '02-04 06 10-11',
  VER: '01-08',
}

/** `DEL-04`, `MAC-04 08 13` for three of one group, and `CHK-04 to CHK-07` for four. */
const ITEMS = /\b([A-Z]{2,4})(?:-(\d{2}) to \1-(\d{2})|(-\d{2}(?: \d{2})*))\b/g

const range = (group: string, first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, index) => `${group}-${String(first + index).padStart(2, '0')}`)

/** The items that a name of a test tells of. */
export const itemsOf = (name: string): string[] =>
  [...name.matchAll(ITEMS)].flatMap(([, group = '', first, last, numbers = '']) =>
    first === undefined
      ? (numbers.match(/\d{2}/g) ?? []).map(number => `${group}-${number}`)
      : range(group, Number(first), Number(last)),
  )

/** Every item of the gate, in order. */
export const gate: readonly string[] = Object.entries(GATE).flatMap(([group, numbers]) =>
  numbers.split(' ').flatMap(each => {
    const [first = 0, last = first] = each.split('-').map(Number)
    return range(group, first, last)
  }),
)

/** What a run says of an item: failed where one of its tests did, passed where one did and none failed. */
function verdict(findings: readonly Finding[]): string {
  if (findings.length === 0) return '–'
  if (findings.some(({ outcome }) => outcome === 'fail')) return '**fails**'
  if (findings.some(({ outcome }) => outcome === 'pass')) return 'passes'
  return `not run: ${findings[0]!.reason ?? 'skipped'}`
}

const titleOf = ({ name }: Finding) =>
  name
    .replace(ITEMS, '')
    .replace(/\((\s|,|to)*\)/g, '')
    .trim()
    .replaceAll('|', '\\|')

/**
 * The table of docs/conformance.md.
 * @param ours what the run of all tests found
 * @param theirs what the same tests found of the reference's executables, as far as they can run against them
 */
export function conformancePage(ours: readonly Finding[], theirs: readonly Finding[], versions: string): string {
  const byItem = (findings: readonly Finding[]) => {
    const found = new Map<string, Finding[]>()
    for (const finding of findings)
      for (const item of new Set(itemsOf(finding.name))) found.set(item, [...(found.get(item) ?? []), finding])
    return found
  }
  const [oursByItem, theirsByItem] = [byItem(ours), byItem(theirs)]
  const items = [...new Set([...gate, ...oursByItem.keys()])].sort()
  const rows = items.map(item => {
    const found = oursByItem.get(item) ?? []
    const shown = new Map(found.map(finding => [titleOf(finding), finding.file]))
    const tests = [...shown].map(([title, file]) => `${title} (\`${file}\`)`).slice(0, 3)
    const more = shown.size > 3 ? [`and ${shown.size - 3} more`] : []
    const isGate = gate.includes(item) ? '•' : ''
    const cells = [item, isGate, verdict(found), verdict(theirsByItem.get(item) ?? []), [...tests, ...more].join('; ')]
    return `| ${cells.join(' | ')} |`
  })
  const passed = gate.filter(item => verdict(oursByItem.get(item) ?? []) === 'passes').length
  return `# Conformance

Written by \`./mooring test --all --docs\`. An item is a promise of the CNI specification, of its conventions, or of the
reference plugins that users depend on; • marks those without which there is no release (${passed} of ${gate.length} pass). The reference
is ${versions}, run by the very same tests where they can run against it (–: they cannot, most because the item is
about a plugin of ours or needs an agent). It fails some on purpose: there it does something else, which is no error of
its users' — a code of its own, a text, a version that the error leaves out.

| item | gate | Mooring | reference | shown by |
|---|---|---|---|---|
${rows.join('\n')}
`
}
