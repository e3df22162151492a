// SPDX-License-Identifier: Apache-2.0

// What every interface plugin promises of DEL, whatever it is called with and whatever happened before: one table for all.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Attachment, folder, type Netns, type Outcome } from './nodelab.ts'

/** A container that a plugin is attached to, or is not yet. */
export type Victim = { readonly pod: Netns; readonly it: Attachment }

export type DelSuite = {
  /** Registers a test. */
  readonly test: (name: string, run: () => Promise<void>) => void
  newPod(): Victim
  /** ADD, with every option that leaves something to take away. @returns its result */
  add(it: Attachment): Promise<object>
  /** DEL. @param more keys of the configuration that differ from those of ADD; undefined: missing */
  del(it: Attachment, more: object): Promise<Outcome>
  assertNothingLeft: (gone?: Row['gone']) => void | Promise<void>
  /** Keys that ADD would refuse. */
  readonly invalid: object
  /** Name of the link in the container. @default eth0 */
  readonly link?: string
  /** What has become of the journal. Left out: what is found without it is told elsewhere. */
  forget?(): void | Promise<void>
  /** Further promises that it is about, by their identifiers. */
  readonly ids?: string
}

type Row = {
  readonly what: string
  /** Somebody removed the link, or the container with all it had. */
  readonly gone?: 'link' | 'container'
  readonly netns?: string | (() => string)
  /** Keys of the configuration. */
  readonly more?: (suite: DelSuite, result: object) => object
}

const rows: readonly Row[] = [
  { what: 'what ADD was called with (DEL-01, RES-20)' },
  { what: 'an empty CNI_NETNS (DEL-03)', netns: '' },
  { what: 'an empty CNI_NETNS and no container any more (DEL-03)', gone: 'container', netns: '' },
  { what: 'a path that is gone (DEL-04)', gone: 'container', netns: '/run/netns/none' },
  { what: 'a plain file where the namespace was (DEL-05)', gone: 'container', netns: fileAt },
  { what: 'the result of ADD', more: (_, prevResult) => ({ prevResult }) },
  { what: 'a result that is none (DEL-06)', more: () => ({ prevResult: { ips: 5, interfaces: 'x' } }) },
  { what: 'a configuration that is not valid any more (DEL-08)', more: ({ invalid }) => invalid },
  { what: 'a link that somebody removed', gone: 'link' },
]

/** Registers the tests: each DEL twice, so that the second has nothing to do. */
export function delTests(suite: DelSuite): void {
  const { test, newPod, add, assertNothingLeft, link = 'eth0', ids } = suite
  const about = ids === undefined ? '' : ` (${ids})`
  const del = async (it: Attachment, more: object = {}) => {
    const { code, stdout } = await suite.del(it, more)
    assert.deepEqual({ code, stdout }, { code: 0, stdout: '' })
  }
  const hasLink = (pod: Netns) => new RegExp(`: ${link}[@:]`).test(pod.ip('-o link'))

  for (const { what, gone, netns, more } of rows)
    test(`DEL: releases everything, twice, with ${what}${about}`, async () => {
      const { pod, it } = newPod()
      const result = await add(it)
      if (gone === 'container') pod.remove()
      if (gone === 'link') pod.ip(`link del ${link}`)
      const path = typeof netns === 'function' ? netns() : (netns ?? it.netns)
      for (const _ of [1, 2]) await del({ ...it, netns: path }, more?.(suite, result))
      if (gone !== 'container') assert.ok(!hasLink(pod))
      await assertNothingLeft(gone)
    })

  test('DEL: before any ADD, and of an interface that never was, changes nothing (DEL-02, DEL-11)', async () => {
    const { pod, it } = newPod()
    await del(it)
    await add(it)
    await del({ ...it, ifName: 'net9' })
    assert.ok(hasLink(pod))
    await del(it)
    await assertNothingLeft()
  })

  const { forget } = suite
  if (forget === undefined) return
  for (const gone of [false, true])
    test(`DEL: finds everything without any record${gone ? ', and without the container' : ''}${about}`, async () => {
      const { pod, it } = newPod()
      await add(it)
      if (gone) pod.remove()
      await forget()
      await del(it)
      await assertNothingLeft()
    })
}

/** A plain file, where a namespace was expected. */
export function fileAt(): string {
  const file = join(folder('files'), 'file')
  writeFileSync(file, '')
  return file
}
