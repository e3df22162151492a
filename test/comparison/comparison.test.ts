// SPDX-License-Identifier: Apache-2.0

// Goal: what the reference's current plugins get wrong, ours do right: the same cases run against both. Where theirs passes
// now, the table of docs/comparison.md is out of date. Needs root and lab/peers.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { peers, skip } from '../nodelab.ts'
import { cases, Trial } from './cases.ts'
import { comparisonPage } from './page.ts'
import { ourSide, type Side, theirSide } from './sides.ts'

const missing = skip || (peers === undefined ? 'needs lab/peers' : false)

/** In lab/vmlab only the kind that the machine's own kernel may lack: a VM is twenty times slower. */
const inVm = process.env['VMLAB'] === '1'
const typesOf = (plugins: readonly string[]) => plugins.filter(type => !inVm || type === 'ipvlan')

/** Some kernels have no ipvlan; the same file runs under lab/vmlab, whose kernel has. */
function lacking(type: string): string | false {
  if (type !== 'ipvlan' || missing) return false
  const probe = 'ip link add p0 type veth && ip link add link p0 name i0 type ipvlan'
  return spawnSync('unshare', ['--net', 'sh', '-c', probe]).status === 0 ? false : 'this kernel has no ipvlan'
}

describe('beside the reference', { skip: missing }, () => {
  let ours: Side
  let theirs: Side
  let number = 0
  const faults = new Map<string, string>()

  /** @returns what is wrong */
  async function judge(
    side: Side,
    type: string,
    run: (trial: Trial) => Promise<string | undefined>,
  ): Promise<string | undefined> {
    const trial = new Trial(side, type, number++)
    try {
      return await run(trial)
    } catch (error) {
      return `${error}`
    } finally {
      await trial.clear()
    }
  }

  before(async () => {
    ours = await ourSide()
    theirs = theirSide(peers!)
    // What the first container brings for good: bridge, table, settings.
    for (const side of [ours, theirs]) {
      const first = async (trial: Trial) => void (await trial.add(trial.config({ ipMasq: true })))
      for (const type of typesOf(['bridge', 'ptp'])) await judge(side, type, first)
      for (const type of typesOf(['portmap']))
        await judge(side, type, async trial => void (await trial.call('DEL', await trial.addChained())))
    }
  })

  after(() => {
    const docs = process.env['MOORING_DOCS']
    if (docs !== undefined) writeFileSync(join(docs, 'comparison.md'), comparisonPage(cases, faults, process.env))
  })

  for (const { name, plugins, theirsRight = [], run } of cases)
    for (const type of typesOf(plugins))
      test(`${type}: ${name}`, { skip: lacking(type) }, async () => {
        const fault = await judge(theirs, type, run)
        if (fault !== undefined) faults.set(`${type}: ${name}`, fault)
        assert.equal(await judge(ours, type, run), undefined)
        const isRight = theirsRight.includes(type)
        assert.equal(
          fault === undefined,
          isRight,
          `the reference's ${type} ${isRight ? `fails: ${fault}` : 'passes now'}`,
        )
      })
})
