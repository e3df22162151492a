// SPDX-License-Identifier: Apache-2.0
// Which test file runs when, and with what. A file belongs to the first suite of this table whose patterns match it,
// and to every suite that is marked `again`.
import { globSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { LabName } from './labs.ts'

export interface Suite {
  readonly name: string
  /** Files start in this order: what takes long comes first, so that it does not run alone in the end. */
  readonly patterns: readonly string[]
  /** These files run here a second time, in another setting. */
  readonly again?: true
  /** Compares times: nothing else of the runner's goes on beside it. */
  readonly measures?: true
  /** Each file runs in a lab/vmlab of its own, but for tests whose name has this text. */
  readonly inVm?: { readonly without: string }
  /** Labs without which the suite does not run. */
  readonly labs: readonly LabName[]
  /** Labs that `--all` adds because some tests of the suite look for them and skip themselves otherwise. */
  readonly labsOfAll?: readonly LabName[]
  readonly env?: Readonly<Record<string, string>>
  /** How many files at once. Files of a lab run alone, because they share its objects. */
  readonly concurrency: number
  /** The same under `--all`, where it is another number. */
  readonly concurrencyOfAll?: number
  /** Limit for one file in milliseconds. */
  readonly timeoutMs: number
}

const MINUTE_MS = 60_000

export const SUITES: readonly Suite[] = [
  {
    name: 'unit',
    patterns: [
      'test/style.test.ts',
      'test/architecture.test.ts',
      'scripts/**/*.test.ts',
      'bench/**/*.test.ts',
      'src/**/*.test.ts',
    ],
    labs: [],
    concurrency: availableParallelism(),
    timeoutMs: 2 * MINUTE_MS,
  },
  {
    name: 'beside the Go plugins',
    patterns: ['test/bench.test.ts'],
    measures: true,
    labs: ['peers'],
    concurrency: 1,
    timeoutMs: 10 * MINUTE_MS,
  },
  {
    name: 'case by case beside the Go plugins',
    patterns: ['test/comparison/**/*.test.ts'],
    labs: ['peers'],
    concurrency: 1,
    timeoutMs: 5 * MINUTE_MS,
  },
  {
    name: 'under a Debian kernel',
    // In pairs that end at about the same time.
    patterns: [
      'test/comparison/**/*.test.ts',
      'test/ipvlan.test.ts',
      'test/veth-route-packets.test.ts',
      'test/chains-printed.test.ts',
      'test/veth-route*.test.ts',
      'test/bridge-vlan.test.ts',
      'test/host-device-nic.test.ts',
      'test/with-vrf.test.ts',
    ],
    again: true,
    // Without KVM the VM is twenty times slower than the machine, and Node.js starts once per call in these.
    inVm: { without: 'standalone' },
    labs: ['vmlab'],
    labsOfAll: ['peers'],
    // A VM has one processor.
    concurrency: availableParallelism(),
    timeoutMs: 10 * MINUTE_MS,
  },
  {
    name: 'on the real OpenStack',
    patterns: ['test/**/real*.test.ts'],
    labs: ['openstack'],
    concurrency: 1,
    timeoutMs: 10 * MINUTE_MS,
  },
  {
    name: 'kubelet',
    patterns: ['test/kubernetes/**/*.test.ts'],
    labs: ['openstack', 'kubernetes'],
    concurrency: 1,
    timeoutMs: 15 * MINUTE_MS,
  },
  {
    name: 'black box, alone',
    // Fractions of a second are compared, or all processors are used.
    patterns: [
      'test/host/pod-link.test.ts',
      'test/conformance/host-local-scale.test.ts',
      'test/openstack-ipam/throttling-storm.test.ts',
      'test/schedules/*.test.ts',
    ],
    labs: [],
    labsOfAll: ['peers'],
    concurrency: 1,
    timeoutMs: 5 * MINUTE_MS,
  },
  {
    // Each file makes what it needs, under names of its own; what it looks at is its own, too. Limits of time are those of a
    // busy machine.
    name: 'black box, side by side',
    patterns: [
      'test/demo/*.test.ts',
      'test/agent.test.ts',
      'test/openstack-ipam/faults.test.ts',
      'test/veth-route*.test.ts',
      'test/conformance/host-local-trouble.test.ts',
      'test/conformance/host-local*.test.ts',
      'test/crash/*.test.ts',
      'test/parallel*.test.ts',
      'test/**/*.test.ts',
    ],
    labs: [],
    labsOfAll: ['peers'],
    // More than the machine has processors: every file waits at times, for a packet or a limit. With `--all` there is more in
    // most of them that keeps a processor busy.
    concurrency: 3 * availableParallelism(),
    concurrencyOfAll: 2 * availableParallelism(),
    timeoutMs: 5 * MINUTE_MS,
  },
  {
    name: 'contract of the real OpenStack',
    patterns: ['test/contract/**/*.test.ts'],
    again: true,
    labs: ['openstack'],
    env: { CONTRACT: 'real' },
    // Each has a project of its own, but Keystone may not know a role yet that it gave while another was removed.
    concurrency: 1,
    timeoutMs: 15 * MINUTE_MS,
  },
]

export interface Planned {
  readonly suite: Suite
  readonly files: readonly string[]
}

/** Every suite with its files, in the order in which they run: what needs no lab first. */
export function plan(root: string): Planned[] {
  const taken = new Set<string>()
  const planned = SUITES.map(suite => {
    const found = [...new Set(suite.patterns.flatMap(pattern => globSync(pattern, { cwd: root }).sort()))]
    const files = suite.again ? found : found.filter(file => !taken.has(file))
    if (!suite.again) for (const file of files) taken.add(file)
    return { suite, files }
  })
  return planned.filter(({ files }) => files.length > 0).sort((a, b) => a.suite.labs.length - b.suite.labs.length)
}

/**
 * What a call means: everything with `all`; else what needs no lab. Words choose files that contain one of them, and
 * a file that no suite without a lab runs brings its labs along: who names it means it.
 */
export function choose(planned: readonly Planned[], words: readonly string[], all: boolean): Planned[] {
  const matching = planned
    .map(({ suite, files }) => ({
      suite,
      files: words.length === 0 ? files : files.filter(file => words.some(word => file.includes(word))),
    }))
    .filter(({ files }) => files.length > 0)
  if (all) return matching
  const withoutLabs = matching.filter(({ suite }) => suite.labs.length === 0)
  return words.length > 0 && withoutLabs.length === 0 ? matching : withoutLabs
}
