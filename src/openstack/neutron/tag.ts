// SPDX-License-Identifier: Apache-2.0
import type { Limits } from '../limits.ts'
import type { Service } from '../service.ts'

/** The tags of one kind of object. Any change of a tag raises the object's revision. */
export type Tags = {
  /** Undefined if the object does not exist. */
  list(id: string, limits: Limits): Promise<readonly string[] | undefined>
  /** Idempotent. */
  add(id: string, tag: string, limits: Limits): Promise<void>
  /** Replaces all tags; the only way to set one with a slash. */
  replace(id: string, tags: readonly string[], limits: Limits): Promise<readonly string[]>
  /** False if it was not there. */
  remove(id: string, tag: string, limits: Limits): Promise<boolean>
}

/** @param plural `ports`, `networks`, `subnets`, `routers` or `floatingips` */
export function tags(service: Service, plural: string): Tags {
  const path = (id: string) => `/${plural}/${encodeURIComponent(id)}/tags`
  const pathOf = (id: string, tag: string) => `${path(id)}/${encodeURIComponent(pathTag(tag))}`
  const decode = (value: unknown): readonly string[] | undefined =>
    Array.isArray(value) && value.every(each => typeof each === 'string') ? value : undefined

  return {
    async list(id, limits) {
      const answer = await service.tryAsk({ action: `list tags of ${id}`, method: 'GET', path: path(id) }, limits)
      if (answer === undefined) return undefined
      const list = decode(answer.body['tags'])
      if (list === undefined) throw answer.unexpected('the answer has no list "tags"')
      return list
    },
    async add(id, tag, limits) {
      await service.ask(
        { action: `add tag "${tag}" to ${id}`, method: 'PUT', path: pathOf(id, tag), repeat: true },
        limits,
      )
    },
    async replace(id, list, limits) {
      const call = { action: `set tags of ${id}`, method: 'PUT', path: path(id), repeat: true } as const
      const answer = await service.ask({ ...call, body: { tags: list.map(checkedTag) } }, limits)
      return decode(answer.body['tags']) ?? list
    },
    async remove(id, tag, limits) {
      const call = { action: `remove tag "${tag}" from ${id}`, method: 'DELETE', path: pathOf(id, tag) } as const
      return (await service.tryAsk({ ...call, repeat: true }, limits)) !== undefined
    },
  }
}

/** Neutron decodes the path before it splits it, so a slash in the tag's own URL, written `%2F` or not, is answered with 404. */
function pathTag(tag: string): string {
  if (tag.includes('/')) throw new RangeError(`Cannot add or remove tag "${tag}": no URL can carry its slash`)
  return checkedTag(tag)
}

/** Neutron takes a comma in a tag, and no filter finds the tag any more: the comma separates tags there. */
function checkedTag(tag: string): string {
  if (tag === '' || tag.length > 255 || tag.includes(','))
    throw new RangeError(`Cannot use tag "${tag}": want 1 to 255 characters without a comma`)
  return tag
}
